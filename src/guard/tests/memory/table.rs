use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use palisade_guard::GuardError;
use palisade_guard::decide::Mark;
use palisade_guard::memory::{FenceTable, MAX_ENTERED, Volatile};
use palisade_token::{Grant, HolderId};
use tokio::runtime::Builder;

use crate::{grant, name};

fn recovered(fences: &[Grant]) -> Result<FenceTable<Volatile>, GuardError> {
    FenceTable::recovered(Volatile, fences.iter().cloned())
}

#[tokio::test]
async fn the_greatest_kept_fence_counts_in_any_order() {
    let kept = [grant("a", 3), grant("b", 1), grant("a", 7), grant("a", 5)];
    let table = recovered(&kept).unwrap();
    assert_eq!(table.fence(&name("a")), Some(Mark::from(&kept[2])));
    assert_eq!(table.fence(&name("b")), Some(Mark::from(&kept[1])));
    assert_eq!(table.fence(&name("c")), None);
    drop(table.admit(&kept[2]).unwrap());
    assert!(matches!(
        table.admit(&kept[3]),
        Err(GuardError::Stale { .. })
    ));
    let sealed = table.seal(&kept[2]).await.unwrap();
    drop(table.enter(&sealed).unwrap());
}

#[test]
fn two_holders_of_one_kept_token_are_found() {
    let twin = Grant {
        holder: HolderId::from_bytes([99; 16]),
        ..grant("a", 7)
    };
    let error = recovered(&[grant("a", 7), twin]).unwrap_err();
    assert!(matches!(error, GuardError::Collision { .. }), "{error:?}");
}

#[tokio::test]
async fn resources_are_bounded() {
    let table = FenceTable::recovered_with(Volatile, [grant("a", 1)], 2).unwrap();
    table.seal(&grant("b", 1)).await.unwrap();
    let error = table.seal(&grant("c", 1)).await.unwrap_err();
    assert!(
        matches!(error, GuardError::LimitReached { limit: 2, .. }),
        "{error:?}"
    );
    table.seal(&grant("a", 2)).await.unwrap();
    assert!(FenceTable::recovered_with(Volatile, [grant("a", 1), grant("b", 1)], 1).is_err());
}

/// What one table has sealed is nothing to another, though both count their seals from the start.
#[tokio::test]
async fn a_sealed_grant_of_another_table_is_decided_by_its_grant() {
    let (one, other) = (FenceTable::new(Volatile), FenceTable::new(Volatile));
    let sealed = one.seal(&grant("a", 10)).await.unwrap();
    other.seal(&grant("a", 11)).await.unwrap();
    assert!(matches!(
        other.enter(&sealed),
        Err(GuardError::Stale { .. })
    ));
    let sealed = one.seal(&grant("b", 10)).await.unwrap();
    let error = other.resolve(&sealed).unwrap_err();
    assert!(
        matches!(error, GuardError::StoreWentBackwards { fence: None, .. }),
        "{error:?}"
    );
    assert!(!sealed.is_live());
    let sealed = one.seal(&grant("c", 10)).await.unwrap();
    other.seal(&grant("c", 10)).await.unwrap();
    drop(other.enter(&sealed).unwrap());
}

/// A handle stays with its table: engines that restart resolve again.
#[tokio::test]
async fn a_handle_ends_with_its_fence_only() {
    let table = FenceTable::new(Volatile);
    let sealed = table.seal(&grant("a", 10)).await.unwrap();
    let handle = table.resolve(&sealed).unwrap();
    assert_eq!(handle.grant(), sealed.grant());
    table.seal(&grant("a", 10)).await.unwrap();
    drop((handle.enter().unwrap(), handle.enter_owned().unwrap()));
    table.seal(&grant("a", 11)).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(handle.enter(), Err(GuardError::Stale { .. })));
        assert!(matches!(
            handle.enter_owned(),
            Err(GuardError::Stale { .. })
        ));
    }
    assert!(!sealed.is_live());
    assert!(matches!(
        table.resolve(&sealed),
        Err(GuardError::Stale { .. })
    ));
}

#[tokio::test]
async fn all_are_entered_or_none() {
    let table = FenceTable::new(Volatile);
    let a = table.seal(&grant("a", 10)).await.unwrap();
    let b = table.seal(&grant("b", 10)).await.unwrap();
    assert_eq!(table.enter_all(&[&b, &a]).unwrap().len(), 2);
    table.seal(&grant("b", 11)).await.unwrap();
    assert!(matches!(
        table.enter_all(&[&a, &b]),
        Err(GuardError::Stale { .. })
    ));
    // No permit of the other is left behind: a seal does not wait.
    table.seal(&grant("a", 11)).await.unwrap();
    let c = table.seal(&grant("c", 1)).await.unwrap();
    for bad in [vec![], vec![&c, &c], vec![&c; MAX_ENTERED + 1]] {
        assert!(matches!(table.enter_all(&bad), Err(GuardError::Misuse(_))));
    }
}

/// Names of every length, also those that differ in their last byte only.
#[tokio::test]
async fn each_name_has_a_fence_of_its_own() {
    let table = FenceTable::new(Volatile);
    let names: Vec<String> = (1..=255)
        .flat_map(|length| ["a", "b"].map(|last| "a".repeat(length - 1) + last))
        .collect();
    for (token, name) in (1..).zip(&names) {
        table.seal(&grant(name, token)).await.unwrap();
    }
    for (token, name) in (1..).zip(&names) {
        drop(table.admit(&grant(name, token)).unwrap());
        assert!(table.admit(&grant(name, token + 1)).is_err(), "{name}");
    }
}

/// Whatever a thread has sealed, every other one finds, however far the table has grown meanwhile.
#[test]
fn what_is_sealed_is_found_by_all_while_the_table_grows() {
    const EACH: u64 = 3_000;
    let table = FenceTable::new(Volatile);
    let sealed = [const { AtomicU64::new(0) }; 3];
    thread::scope(|scope| {
        for (own, done) in sealed.iter().enumerate() {
            let (table, sealed) = (&table, &sealed);
            scope.spawn(move || {
                let runtime = Builder::new_current_thread().build().unwrap();
                for number in 0..EACH {
                    runtime
                        .block_on(table.seal(&grant(&format!("{own}/{number}"), 1)))
                        .unwrap();
                    done.store(number + 1, Ordering::Release);
                    for (other, done) in sealed.iter().enumerate() {
                        let done = done.load(Ordering::Acquire);
                        for number in [done.checked_sub(1), done.checked_sub(done / 2 + 1)] {
                            let Some(number) = number else { continue };
                            drop(
                                table
                                    .admit(&grant(&format!("{other}/{number}"), 1))
                                    .unwrap(),
                            );
                        }
                    }
                }
            });
        }
    });
    for (own, number) in (0..3).flat_map(|own| (0..EACH).map(move |number| (own, number))) {
        assert!(table.fence(&name(&format!("{own}/{number}"))).is_some());
    }
}
