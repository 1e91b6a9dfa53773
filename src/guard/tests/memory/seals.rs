use std::pin::pin;
use std::sync::atomic::Ordering;

use futures::poll;
use palisade_guard::memory::{FenceTable, Volatile};
use palisade_guard::{Class, GuardError};

use crate::{Held, grant, name};

#[tokio::test]
async fn a_seal_waits_for_every_earlier_permit_and_admits_nobody_meanwhile() {
    let table = FenceTable::new(Volatile);
    let old = table.seal(&grant("orders", 10)).await.unwrap();
    let handle = table.resolve(&old).unwrap();
    let (first, second) = (handle.enter().unwrap(), table.enter(&old).unwrap());
    let new = grant("orders", 11);
    let mut seal = pin!(table.seal(&new));
    assert!(poll!(seal.as_mut()).is_pending());
    // It is not sealed yet, and there is no way in for anybody.
    for refused in [
        handle.enter().map(drop),
        table.enter(&old).map(drop),
        table.admit(&grant("orders", 10)).map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, GuardError::Stale { fence, .. } if fence == new.token));
    }
    let early = table.admit(&new).unwrap_err();
    assert!(
        matches!(early, GuardError::Unsealed { fence: Some(fence), .. } if fence.get() == 10),
        "{early:?}"
    );
    drop(first);
    assert!(poll!(seal.as_mut()).is_pending(), "one is still inside");
    drop(second);
    let sealed = seal.await.unwrap();
    drop(table.enter(&sealed).unwrap());
    assert!(!old.is_live());
}

#[tokio::test]
async fn writers_of_one_resource_do_not_keep_another_waiting() {
    let table = FenceTable::new(Volatile);
    let orders = table.seal(&grant("orders", 10)).await.unwrap();
    let _permit = table.enter(&orders).unwrap();
    let mut seal = pin!(async { table.seal(&grant("bills", 10)).await });
    assert!(poll!(seal.as_mut()).is_ready());
}

/// Until the fence is kept, the new holder does not write: a crash would let the old one in again.
#[tokio::test]
async fn nobody_writes_before_the_fence_is_kept() {
    let table = FenceTable::new(Held::default());
    let new = grant("orders", 10);
    let mut seal = pin!(table.seal(&new));
    assert!(poll!(seal.as_mut()).is_pending());
    assert!(matches!(
        table.admit(&new),
        Err(GuardError::Unsealed { fence: None, .. })
    ));
    let mut same = pin!(table.seal(&new));
    assert!(
        poll!(same.as_mut()).is_pending(),
        "sealed before it was kept"
    );
    table.durability().allow(1);
    let sealed = seal.await.unwrap();
    let again = same.await.unwrap();
    drop((table.enter(&sealed).unwrap(), table.enter(&again).unwrap()));
    assert_eq!(
        *table.durability().kept.lock().unwrap(),
        [10],
        "kept once for both"
    );
}

#[tokio::test]
async fn a_fence_that_cannot_be_kept_admits_nobody_until_it_can() {
    let table = FenceTable::new(Held::default());
    table.durability().allow(1);
    let old = table.seal(&grant("orders", 10)).await.unwrap();
    table.durability().fail_next();
    let error = table.seal(&grant("orders", 11)).await.unwrap_err();
    assert_eq!(error.class(), Class::Backend, "{error:?}");
    assert!(matches!(table.enter(&old), Err(GuardError::Stale { .. })));
    assert!(matches!(
        table.admit(&grant("orders", 11)),
        Err(GuardError::Unsealed { .. })
    ));
    table.durability().allow(1);
    let new = table.seal(&grant("orders", 11)).await.unwrap();
    drop(table.enter(&new).unwrap());
    assert_eq!(*table.durability().kept.lock().unwrap(), [10, 11]);
}

/// What is kept never falls: two seals of a resource are not kept at once.
#[tokio::test]
async fn fences_of_one_resource_are_kept_one_after_another() {
    let table = FenceTable::new(Held::default());
    let (lower, higher) = (grant("orders", 10), grant("orders", 11));
    let mut first = pin!(table.seal(&lower));
    assert!(poll!(first.as_mut()).is_pending());
    let mut second = pin!(table.seal(&higher));
    assert!(poll!(second.as_mut()).is_pending());
    assert_eq!(table.durability().begun.load(Ordering::SeqCst), 1);
    table.durability().allow(2);
    let overtaken = first.await.unwrap_err();
    assert!(matches!(overtaken, GuardError::Stale { fence, .. } if fence.get() == 11));
    let sealed = second.await.unwrap();
    drop(table.enter(&sealed).unwrap());
    assert_eq!(*table.durability().kept.lock().unwrap(), [10, 11]);
}

/// Wherever a seal is given up, the next one goes through and the one given up admits nobody.
#[tokio::test]
async fn a_seal_given_up_at_any_point_leaves_the_resource_closed_and_sealable() {
    for given_up_in in [
        "durability",
        "the wait for writers",
        "the wait for its turn",
    ] {
        let table = FenceTable::new(Held::default());
        table.durability().allow(1);
        let old = table.seal(&grant("orders", 10)).await.unwrap();
        let permit = table.enter(&old).unwrap();
        if given_up_in != "durability" {
            table.durability().allow(1);
        }
        {
            let (first, second) = (grant("orders", 11), grant("orders", 12));
            let mut seal = pin!(table.seal(&first));
            assert!(poll!(seal.as_mut()).is_pending());
            if given_up_in == "the wait for its turn" {
                let mut behind = pin!(table.seal(&second));
                assert!(poll!(behind.as_mut()).is_pending());
            }
        }
        assert!(
            matches!(table.enter(&old), Err(GuardError::Stale { .. })),
            "{given_up_in}"
        );
        for token in [11, 12] {
            assert!(
                table.admit(&grant("orders", token)).is_err(),
                "{given_up_in}"
            );
        }
        drop(permit);
        table.durability().allow(1);
        let new = table.seal(&grant("orders", 12)).await.unwrap();
        drop(table.enter(&new).unwrap());
        assert_eq!(table.fence(&name("orders")).unwrap().token.get(), 12);
    }
}
