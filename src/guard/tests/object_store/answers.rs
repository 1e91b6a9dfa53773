use std::sync::Arc;

use object_store::memory::InMemory;
use palisade_guard::object_store::{ATTEMPTS, Guard, RECENT};
use palisade_guard::{Class, GuardError};

use crate::faulty::Fault;
use crate::{Bucket, grant};

const TRIES: usize = 4;

/// Whatever became of the request, a commit that is told as done is done once, and readable.
#[tokio::test]
async fn a_commit_whose_answer_is_lost_finds_out_what_became_of_it() {
    for faults in [
        &[Fault::Happened][..],
        &[Fault::Twice],
        &[Fault::Lost],
        &[Fault::Conflict],
        &[Fault::Lost, Fault::Conflict, Fault::Happened],
        &[Fault::Delayed, Fault::Happened],
    ] {
        let bucket = Bucket::new();
        let sealed = bucket.seal(10).await;
        let mut write = bucket.guard.begin(&sealed).await.unwrap();
        write.put("new").await.unwrap();
        bucket.store.next(faults);
        write
            .commit()
            .await
            .unwrap_or_else(|error| panic!("{faults:?}: {error:?}"));
        assert_eq!(bucket.text().await.as_deref(), Some("new"), "{faults:?}");
        assert_eq!(
            bucket.store.arrive().await,
            0,
            "{faults:?}: it happened twice"
        );
        bucket.write(&sealed, "newer").await.unwrap();
        assert_eq!(bucket.text().await.as_deref(), Some("newer"));
    }
}

/// The same for a seal, at each of its requests: the first manifest, the fence, the barrier.
#[tokio::test]
async fn a_seal_whose_answers_are_lost_seals() {
    let wrong = [
        Fault::Happened,
        Fault::Twice,
        Fault::Lost,
        Fault::Conflict,
        Fault::Delayed,
    ];
    for place in 0..3 {
        for fault in wrong {
            let bucket = Bucket::new();
            let mut faults = vec![Fault::None; place];
            faults.push(fault);
            bucket.store.next(&faults);
            let sealed = bucket.seal(10).await;
            assert_eq!(bucket.store.arrive().await, 0, "{place} {fault:?}");
            bucket.write(&sealed, "first").await.unwrap();
            let (old, new) = (sealed, bucket.seal(11).await);
            let stale = bucket.write(&old, "second").await.unwrap_err();
            assert!(
                matches!(stale, GuardError::Stale { .. }),
                "{place} {fault:?}: {stale:?}"
            );
            bucket.write(&new, "third").await.unwrap();
            assert_eq!(bucket.text().await.as_deref(), Some("third"));
        }
    }
}

/// A commit that is still on its way when its writer gives up may happen, but not behind a seal (I2).
#[tokio::test]
async fn a_commit_on_its_way_does_not_arrive_behind_a_seal() {
    assert_eq!(u32::try_from(TRIES).unwrap(), ATTEMPTS);
    for sealed_meanwhile in [true, false] {
        let bucket = Bucket::new();
        let old = bucket.seal(10).await;
        bucket.write(&old, "first").await.unwrap();
        let mut write = bucket.guard.begin(&old).await.unwrap();
        write.put("late").await.unwrap();
        bucket.store.next(&[Fault::Delayed; TRIES]);
        let error = write.commit().await.unwrap_err();
        assert!(
            matches!(error, GuardError::CommitUnknown { .. }),
            "{error:?}"
        );
        assert_eq!(error.class(), Class::Unknown);
        if sealed_meanwhile {
            let new = bucket.seal(11).await;
            assert_eq!(bucket.text().await.as_deref(), Some("first"));
            assert_eq!(bucket.store.arrive().await, 0, "it arrived behind the seal");
            assert_eq!(bucket.text().await.as_deref(), Some("first"));
            bucket.write(&new, "second").await.unwrap();
        } else {
            assert_eq!(bucket.store.arrive().await, 1, "of all copies one");
            assert_eq!(bucket.text().await.as_deref(), Some("late"));
        }
    }
}

/// A seal on its way may raise the fence later; it lowers nothing.
#[tokio::test]
async fn a_seal_on_its_way_lowers_nothing() {
    let bucket = Bucket::new();
    bucket.seal(10).await;
    // The manifest alone, each time it is tried.
    bucket.store.next(&[Fault::Delayed; TRIES * TRIES]);
    let error = bucket
        .guard
        .seal(&grant("orders/eu", 11))
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Backend, "{error:?}");
    let new = bucket.seal(12).await;
    assert_eq!(bucket.store.arrive().await, 0);
    assert_eq!(bucket.fence().await, Some(12));
    bucket.write(&new, "text").await.unwrap();
}

/// When the store cannot even be read, nothing is claimed.
#[tokio::test]
async fn a_commit_that_cannot_be_looked_for_is_unknown() {
    let bucket = Bucket::new();
    let sealed = bucket.seal(10).await;
    let mut write = bucket.guard.begin(&sealed).await.unwrap();
    write.put("new").await.unwrap();
    bucket
        .store
        .next(&[Fault::Happened, Fault::Lost, Fault::Lost, Fault::Lost]);
    bucket.store.next_reads(&[Fault::Lost; TRIES]);
    let error = write.commit().await.unwrap_err();
    assert!(
        matches!(error, GuardError::CommitUnknown { .. }),
        "{error:?}"
    );
    assert_eq!(bucket.text().await.as_deref(), Some("new"));
}

/// Credentials that end between two attempts say nothing about the first: it may have happened, or may still.
#[tokio::test]
async fn a_commit_that_is_denied_on_its_second_attempt_is_unknown() {
    for first in [Fault::Happened, Fault::Delayed] {
        let bucket = Bucket::new();
        let sealed = bucket.seal(10).await;
        let mut write = bucket.guard.begin(&sealed).await.unwrap();
        write.put("new").await.unwrap();
        bucket.store.next(&[first]);
        bucket.store.next(&[Fault::Denied; TRIES]);
        bucket.store.next_reads(&[Fault::Lost; TRIES]);
        let error = write.commit().await.unwrap_err();
        assert_eq!(error.class(), Class::Unknown, "{first:?}: {error:?}");
        bucket.store.arrive().await;
        assert_eq!(bucket.text().await.as_deref(), Some("new"), "{first:?}");
    }
    // On the first it says that nothing happens.
    let bucket = Bucket::new();
    let sealed = bucket.seal(10).await;
    let write = bucket.guard.begin(&sealed).await.unwrap();
    bucket.store.next(&[Fault::Denied]);
    let error = write.commit().await.unwrap_err();
    assert_eq!(error.class(), Class::Backend, "{error:?}");
}

/// Of two writes that began on the same version one is published: the other has read what is gone.
#[tokio::test]
async fn writes_of_one_holder_do_not_overwrite_each_other() {
    let bucket = Bucket::new();
    let sealed = bucket.seal(10).await;
    let mut first = bucket.guard.begin(&sealed).await.unwrap();
    let mut second = bucket.guard.begin(&sealed).await.unwrap();
    first.put("first").await.unwrap();
    second.put("second").await.unwrap();
    second.commit().await.unwrap();
    let error = first.commit().await.unwrap_err();
    assert_eq!(error.class(), Class::Retry, "{error:?}");
    assert!(sealed.is_live());
    assert_eq!(bucket.text().await.as_deref(), Some("second"));
}

/// An own success is recognised under the changes of others, as long as the manifest remembers it.
#[tokio::test]
async fn an_own_success_is_recognised_under_later_changes() {
    for changes in [1, RECENT - 1, RECENT] {
        let bucket = Bucket::new();
        let sealed = bucket.seal(10).await;
        let mut write = bucket.guard.begin(&sealed).await.unwrap();
        write.put("mine").await.unwrap();
        let others = Guard::new(Arc::<InMemory>::clone(bucket.store.inner()), "tables");
        bucket.store.meanwhile(Box::pin(async move {
            for _ in 0..changes {
                let mut write = others.begin(&sealed).await.unwrap();
                write.put("theirs").await.unwrap();
                write.commit().await.unwrap();
            }
        }));
        bucket.store.next(&[Fault::Overtaken]);
        match write.commit().await {
            Ok(_) => assert!(changes < RECENT),
            Err(GuardError::CommitUnknown { .. }) => assert_eq!(changes, RECENT),
            Err(error) => panic!("{changes}: {error:?}"),
        }
        assert_eq!(bucket.text().await.as_deref(), Some("theirs"));
    }
}

#[tokio::test]
async fn a_store_without_conditional_updates_is_refused_at_the_first_seal() {
    let bucket = Bucket::new();
    bucket.store.next(&[Fault::None, Fault::Unsupported]);
    let error = bucket
        .guard
        .seal(&grant("orders/eu", 10))
        .await
        .unwrap_err();
    assert!(matches!(error, GuardError::Misuse(_)), "{error:?}");
    assert_eq!(bucket.fence().await, None);
}
