//! Seals against writers that have begun: each commits before the seal returns, or never.

use std::cell::Cell;
use std::pin::pin;

use futures::future::{self, Either};
use palisade_token::ResourceName;

use super::check::{first, grant, lacks, open, seal, try_seal, try_write, value_is, within, write};
use super::{Capability, Subject, resources};
use crate::Class;

/// Takeovers under load.
const ROUNDS: u64 = 8;

/// Writers of each holder, and how often each writes unless it is refused.
const WRITERS: u64 = 3;
const WRITES: u64 = 6;

/// I2 itself. A store may keep the seal waiting for the writer, or let it pass and refuse the commit.
pub async fn a_running_writer_commits_before_the_seal_returns_or_never<S: Subject>(subject: S) {
    let resource = first();
    let old = seal(&subject, &grant(&resource, 10)).await;
    write(&subject, &old, &resource, 1).await;
    let attempt = open(&subject, &[&old], &resource, 2).await;
    take_over(&subject, attempt, &resource, &resource, &[]).await;
}

/// The same for a writer that was admitted and has written nothing yet: a check before the write is no guard.
pub async fn a_writer_that_has_only_begun_writes_before_the_seal_returns_or_never<S: Subject>(
    subject: S,
) {
    let resource = first();
    let old = seal(&subject, &grant(&resource, 10)).await;
    write(&subject, &old, &resource, 1).await;
    let attempt = within(&subject, "begin", subject.begin(&[&old])).await;
    let attempt = attempt.unwrap_or_else(|error| panic!("begin: expected Ok, saw {error:?}"));
    take_over(&subject, attempt, &resource, &resource, &[2]).await;
}

/// A write for several resources runs in each of them.
pub async fn a_running_writer_of_several_resources_holds_each_seal<S: Subject>(subject: S) {
    if lacks::<S>(Capability::Several) {
        return;
    }
    let [one, two, _] = resources();
    for (round, taken) in (1..).zip([&one, &two]) {
        let in_one = seal(&subject, &grant(&one, 20 * round)).await;
        let in_two = seal(&subject, &grant(&two, 20 * round)).await;
        write(&subject, &in_one, &one, 1).await;
        let attempt = open(&subject, &[&in_one, &in_two], &one, 2).await;
        take_over(&subject, attempt, &one, taken, &[]).await;
    }
}

/// Seals `taken` ten above while the attempt runs, which is to set the register of `put` to 2, and
/// lets it do the rest of its puts and commit as late as can be.
async fn take_over<S: Subject>(
    subject: &S,
    mut attempt: S::Write,
    put: &ResourceName,
    taken: &ResourceName,
    rest: &[u64],
) {
    let fence = subject.fence(taken).await.expect("it was sealed");
    let new = grant(taken, fence.token.get() + 10);
    // What the new holder reads first, at once.
    let mut takeover = pin!(async {
        let sealed = try_seal(subject, &new).await;
        (sealed, subject.get(put).await)
    });
    let early = match future::select(takeover.as_mut(), pin!(subject.pause())).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    };
    let commit = within(subject, "the rest of the write", async {
        for value in rest {
            subject.put(&mut attempt, put, *value).await?;
        }
        subject.commit(attempt).await
    });
    let (committed, (sealed, read)) = match early {
        Some(done) => (commit.await, done),
        None => future::join(commit, takeover).await,
    };
    let sealed = sealed.unwrap_or_else(|error| panic!("seal: expected Ok, saw {error:?}"));
    let expected = Some(if committed.is_ok() { 2 } else { 1 });
    assert!(
        read == expected,
        "the commit of the writer was answered {committed:?}: expected the new holder to read \
         {expected:?} after its seal, saw {read:?}"
    );
    value_is(subject, "once both have ended", put, expected).await;
    if put == taken {
        write(subject, &sealed, put, 3).await;
    }
}

/// A seal does not end the writers of other resources. (They may have to try again.)
pub async fn a_running_writer_of_another_resource_goes_on<S: Subject>(subject: S) {
    let [own, other, _] = resources();
    let sealed = seal(&subject, &grant(&own, 10)).await;
    let attempt = open(&subject, &[&sealed], &own, 1).await;
    let new = grant(&other, 10);
    let takeover = try_seal(&subject, &new);
    let (committed, taken) = future::join(subject.commit(attempt), takeover).await;
    assert!(
        taken.is_ok(),
        "seal of another resource: expected Ok, saw {:?}",
        taken.err()
    );
    match committed {
        Ok(()) => value_is(&subject, "after its commit", &own, Some(1)).await,
        Err(error) if error.class() == Class::Retry => write(&subject, &sealed, &own, 1).await,
        Err(error) => panic!("commit: expected Ok, saw {error:?}"),
    }
}

/// A seal that is dropped while it waits may have happened or not; it stops nobody.
pub async fn a_seal_given_up_blocks_nobody<S: Subject>(subject: S) {
    let resource = first();
    let old = seal(&subject, &grant(&resource, 10)).await;
    write(&subject, &old, &resource, 1).await;
    for token in [11, 12] {
        // The second finds what the first has left.
        let Ok(mut attempt) = subject.begin(&[&old]).await else {
            break;
        };
        if subject.put(&mut attempt, &resource, 2).await.is_err() {
            break;
        }
        {
            let new = grant(&resource, token);
            let given_up = pin!(subject.seal(&new));
            drop(future::select(given_up, pin!(subject.pause())).await);
        }
        drop(attempt);
    }
    let new = seal(&subject, &grant(&resource, 13)).await;
    write(&subject, &new, &resource, 3).await;
    let seen = try_write(&subject, &old, &resource, 4).await;
    assert!(
        seen.is_err(),
        "a write of the old holder: expected a refusal, saw {seen:?}"
    );
    value_is(&subject, "after it", &resource, Some(3)).await;
}

/// Takeover after takeover while the holders before write: what a new holder reads after its seal, no
/// earlier one changes.
pub async fn seals_under_load<S: Subject>(subject: S) {
    let resource = first();
    let mut sealed = seal(&subject, &grant(&resource, 100)).await;
    for token in 101..=100 + ROUNDS {
        let is_sealed = Cell::new(false);
        let writers = (0..WRITERS).map(|writer| {
            let (subject, sealed, resource) = (&subject, &sealed, &resource);
            let is_sealed = &is_sealed;
            async move {
                for count in 0..WRITES {
                    let late = is_sealed.get();
                    let value = (token - 1) * 1000 + writer * 100 + count;
                    match try_write(subject, sealed, resource, value).await {
                        Ok(()) => assert!(
                            !late,
                            "a write of {} begun after the seal of {token}: expected a refusal, saw Ok",
                            token - 1
                        ),
                        Err(error) if error.class() == Class::Retry => {}
                        Err(error) if error.class() == Class::Fatal => return,
                        Err(error) => panic!("write: expected Ok or a refusal, saw {error:?}"),
                    }
                }
            }
        });
        let new = grant(&resource, token);
        let takeover = async {
            let new = try_seal(&subject, &new).await;
            is_sealed.set(true);
            (new, subject.get(&resource).await)
        };
        let (_, (new, read)) = future::join(future::join_all(writers), takeover).await;
        value_is(
            &subject,
            "after the old writers have ended",
            &resource,
            read,
        )
        .await;
        sealed = new.unwrap_or_else(|error| panic!("seal {token}: expected Ok, saw {error:?}"));
    }
}
