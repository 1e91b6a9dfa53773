//! What was seen over one connection counts over no other: revisions name leases only within one history, and another
//! connection may lead to a restored etcd (I1, I3).

use std::sync::Arc;

use futures::future::join_all;
use palisade_token::ResourceName;

use super::{World, heir, name};
use crate::domain::{Claim, RequestId, SessionId};
use crate::store::Store;
use crate::store::etcd::EtcdStore;
use crate::store::etcd::effort::{Effort, Taken};
use crate::store::etcd::link::Link;
use crate::store::etcd::step;
use crate::store::etcd::view::{Source, Subject};

/// A new connection in place of one, on which grants can be made again.
async fn another(world: &World, link: &Arc<Link>) -> Arc<Link> {
    link.give_up();
    let next = Box::pin(world.prompt.links.get()).await.unwrap();
    assert!(!Arc::ptr_eq(link, &next));
    next.generation().await.unwrap();
    next
}

fn subject(resource: &ResourceName, session: SessionId) -> Subject<'_> {
    Subject {
        resource,
        session: Some(session),
        request: None,
    }
}

#[tokio::test]
async fn what_was_seen_over_one_connection_is_not_guessed_by_over_the_next() {
    let world = World::new().await;
    let client = world.client("one").await;
    client.take("r", "1").await;
    let link = Box::pin(world.prompt.links.get()).await.unwrap();
    let name = name();
    let subject = subject(&name, client.caller.session);
    let guess = link.known().guess(&link, subject);
    assert!(guess.is_some_and(|guess| guess.hold.is_some()));
    let next = another(&world, &link).await;
    assert!(next.known().guess(&next, subject).is_none());
}

#[tokio::test]
async fn what_a_step_saw_over_one_connection_is_looked_up_again_over_the_next() {
    let world = World::new().await;
    let (client, faster) = (world.client("one").await, world.client("faster").await);
    let link = Box::pin(world.prompt.links.get()).await.unwrap();
    let name = name();
    let mut effort = Effort::new(subject(&name, client.caller.session));
    effort.stop_guessing();
    let sight = effort.look(&link).await.unwrap();
    let generation = link.generation().await.unwrap();
    let late = world.decides(&client.wish("r", "late", false)).await;
    let super::Step::Acquire(crate::domain::AcquireStep::Grant { claim, .. }) = late.step else {
        panic!("it is free: {:?}", late.step);
    };
    faster.take("r", "faster").await;
    let (keys, hold) = (&link.context().keys, heir(claim, &generation));
    for over_another in [false, true] {
        let session = sight.session.as_ref().expect("it saw its session");
        let step = step::grant(keys, &sight, session, &generation, &hold, None);
        let taken = effort.take(&link, step).await.unwrap();
        assert!(matches!(taken, Taken::Overtaken));
        let (over, source) = match over_another {
            false => (Arc::clone(&link), Source::Log),
            true => (another(&world, &link).await, Source::Read),
        };
        let seen = effort.look(&over).await.unwrap();
        assert_eq!(seen.source, source);
        assert!(seen.hold.is_some());
    }
}

/// A guess that the log has shown to be wrong is not guessed by again: etcd is looked at.
#[tokio::test]
async fn what_was_guessed_wrong_is_looked_up() {
    let world = World::new().await;
    let client = world.client("one").await;
    let link = Box::pin(world.prompt.links.get()).await.unwrap();
    let generation = link.generation().await.unwrap();
    let names: Vec<_> = (0..6).map(|number| format!("own/{number}")).collect();
    let names = names.iter().map(|name| ResourceName::new(name).unwrap());
    let names: Vec<_> = names.collect();
    let mut efforts = Vec::new();
    for name in &names {
        let mut effort = Effort::new(subject(name, client.caller.session));
        let sight = effort.look(&link).await.unwrap();
        assert_eq!(sight.source, Source::Guess);
        efforts.push((effort, sight, name));
    }
    // The other coordinator raises the mark.
    let late: Arc<dyn Store> = Arc::<EtcdStore>::clone(&world.late);
    client
        .through(&late)
        .at(2)
        .take("elsewhere", "raises")
        .await;
    // The first goes by itself, the others together.
    let taken = efforts.iter_mut().map(|(effort, sight, name)| {
        let session = sight.session.as_ref().expect("it is known");
        let request = RequestId::new("1").unwrap();
        let claim = Claim::new(&session.record, (*name).clone(), request, Vec::new());
        let hold = heir(claim, &generation);
        let keys = &link.context().keys;
        let step = step::grant(keys, sight, session, &generation, &hold, None);
        effort.take(&link, step)
    });
    for taken in join_all(taken).await {
        assert!(matches!(taken.unwrap(), Taken::Overtaken));
    }
    for (effort, _, _) in &mut efforts {
        let sight = effort.look(&link).await.unwrap();
        assert_eq!(sight.source, Source::Read);
    }
}
