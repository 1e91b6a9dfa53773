//! What a stream gives back rests on its own mark: once a newer one has the session, nothing of it happens (I4).

use super::endings::waits;
use super::{Late, Step, World, heir};
use crate::domain::{HoldName, ReleaseStep};
use crate::store::etcd::batch::Decided;
use crate::store::etcd::step;

/// Carries a release out as one that came on a stream; whether it did anything.
async fn carries_out_on_its_stream(late: Late) -> bool {
    let (link, sight) = (late.link, late.sight);
    let keys = &link.context().keys;
    let session = sight.session.as_deref().expect("it saw its session");
    let step = match late.step {
        Step::Release(_, ReleaseStep::End { successor, .. }) => {
            let heir = successor.map(|place| {
                let hold = heir(place.claim.clone(), &late.generation);
                (sight.spot(keys, &place), hold)
            });
            let heir = heir.as_ref().map(|(spot, hold)| (spot, hold));
            step::end(keys, &sight, heir, Some(session)).expect("it saw the lease")
        }
        Step::Release(_, ReleaseStep::Leave(place)) => {
            step::leave(&sight.spot(keys, &place), Some(session))
        }
        other => panic!("it gives nothing back: {other:?}"),
    };
    matches!(link.submit(step).await.unwrap(), Decided::Applied(..))
}

#[tokio::test]
async fn a_stream_that_was_superseded_gives_nothing_back() {
    let world = World::new().await;
    let (holder, waiter) = (world.client("holder").await, world.client("waiter").await);
    let hold = holder.take("r", "1").await;
    waiter.queue("r", "waits").await;
    let token = HoldName::Token(hold.token().unwrap());
    let hand_over = world.decides_release(&holder, token.clone()).await;
    let leave = world.decides_release(&waiter, waits()).await;
    waiter.at(2).take("elsewhere/1", "raises").await;
    holder.at(2).take("elsewhere/2", "raises").await;
    let before = world.all_keys().await;
    for (late, kind) in [(hand_over, "hand over"), (leave, "leave")] {
        assert_eq!(late.step.kind(), kind);
        assert!(!Box::pin(carries_out_on_its_stream(late)).await, "{kind}");
        assert_eq!(world.all_keys().await, before, "{kind}");
    }
    // What is not superseded is carried out: the one, and then the other.
    let (holder, waiter) = (holder.at(2), waiter.at(2));
    let leave = world.decides_release(&waiter, waits()).await;
    assert!(Box::pin(carries_out_on_its_stream(leave)).await);
    let end = world.decides_release(&holder, token).await;
    assert!(Box::pin(carries_out_on_its_stream(end)).await);
}
