use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use palisade_guard::memory::{FenceTable, Volatile};

use crate::grant;

const TAKEOVERS: u64 = 3_000;

/// Writers on real threads, some of which leave while the seal goes to sleep: a wakeup that is lost would
/// hang, and a writer that slipped in would change what the seal has read.
#[tokio::test]
async fn the_last_to_leave_wakes_the_seal_and_nothing_is_written_after_it() {
    let table = Arc::new(FenceTable::new(Volatile));
    let data = Arc::new(AtomicU64::new(0));
    let mut sealed = table.seal(&grant("orders", 1)).await.unwrap();
    for token in 2..=TAKEOVERS {
        let writers: Vec<_> = (0..2)
            .map(|by_name| {
                let (table, data, sealed) = (Arc::clone(&table), Arc::clone(&data), sealed.clone());
                let handle = table.resolve(&sealed);
                thread::spawn(move || {
                    let Ok(handle) = handle else { return };
                    for _ in 0..64 {
                        if by_name == 1 {
                            let Ok(_permit) = table.enter(&sealed) else {
                                return;
                            };
                            data.fetch_add(1, Ordering::Relaxed);
                        } else {
                            let Ok(_permit) = handle.enter() else { return };
                            data.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        sealed = table.seal(&grant("orders", token)).await.unwrap();
        let seen = data.load(Ordering::Relaxed);
        for writer in writers {
            writer.join().unwrap();
        }
        assert_eq!(
            data.load(Ordering::Relaxed),
            seen,
            "written after seal {token}"
        );
    }
}
