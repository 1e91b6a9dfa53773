//! The in-memory fence table: enter and leave, by two threads at once.

use std::thread;
use std::time::Duration;

use palisade_guard::memory::{FenceTable, Handle, Sealed, Volatile};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};

use super::load::Sample;
use super::tell::Findings;
use crate::args::GuardBenchArgs;
use crate::bench::report::count;
use crate::clock::Stopwatch;
use crate::failure::Failure;

const RESOURCES: u32 = 100_000;
pub(super) const THREADS: u32 = 2;
/// Between two looks at the clock.
const CHUNK: u32 = 4_096;

/// How a write finds its fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Through a handle of its own, again and again.
    OneHandle,
    /// Through the handles of all resources, in no order.
    Handle,
    /// By the names of all resources, in no order.
    Name,
}

/// A table in which everything is sealed.
#[derive(Debug)]
pub(super) struct Sealing {
    table: FenceTable<Volatile>,
    sealed: Vec<Sealed>,
    handles: Vec<Handle>,
}

impl Sealing {
    pub(super) async fn all() -> Result<Self, Failure> {
        let wrong = |error: &dyn std::fmt::Display| Failure::other(format!("no grant: {error}"));
        let table = FenceTable::new(Volatile);
        let mut sealed = Vec::new();
        for number in 0..RESOURCES {
            let grant = Grant {
                resource: ResourceName::new(format!("bench/{number}"))
                    .map_err(|error| wrong(&error))?,
                token: FencingToken::new(1).map_err(|error| wrong(&error))?,
                holder: HolderId::from_bytes([7; 16]),
            };
            sealed.push(table.seal(&grant).await?);
        }
        let handles: Result<Vec<Handle>, _> =
            sealed.iter().map(|sealed| table.resolve(sealed)).collect();
        Ok(Self {
            handles: handles?,
            table,
            sealed,
        })
    }

    pub(super) fn round(
        &self,
        args: &GuardBenchArgs,
        findings: &mut Findings,
    ) -> Result<(), Failure> {
        for (way, name) in [
            (Way::OneHandle, "handle-one"),
            (Way::Handle, "handle"),
            (Way::Name, "name"),
        ] {
            let threads = thread::scope(|scope| {
                let start = |number| scope.spawn(move || self.work(way, number, args.round));
                let threads: Vec<_> = (0..THREADS).map(start).collect();
                threads
                    .into_iter()
                    .map(thread::ScopedJoinHandle::join)
                    .collect::<Vec<_>>()
            });
            for thread in threads {
                let each =
                    thread.map_err(|_| Failure::other("a thread of the bench panicked"))??;
                findings.memory(name, each);
            }
        }
        Ok(())
    }

    /// One thread's: how long each enter and leave took on average.
    fn work(&self, way: Way, number: u32, length: Duration) -> Result<Sample, Failure> {
        let clock = Stopwatch::start();
        let mut random = number + 1;
        let mut chunks = 0_usize;
        let own = self.at(random);
        loop {
            for _ in 0..CHUNK {
                // Marsaglia's xorshift: a nanosecond, and no order that a processor could foresee.
                random ^= random << 13;
                random ^= random >> 17;
                random ^= random << 5;
                let at = if way == Way::OneHandle {
                    own
                } else {
                    self.at(random)
                };
                match way {
                    Way::OneHandle | Way::Handle => drop(self.handles[at].enter()?),
                    Way::Name => drop(self.table.enter(&self.sealed[at])?),
                }
            }
            chunks += 1;
            let time = clock.elapsed();
            if time >= length {
                return Ok(Sample {
                    operations: chunks,
                    time,
                    nanoseconds: Some(
                        time.as_secs_f64() * 1e9 / (count(chunks) * f64::from(CHUNK)),
                    ),
                    ..Sample::default()
                });
            }
        }
    }

    fn at(&self, random: u32) -> usize {
        usize::try_from(random % RESOURCES).unwrap_or_default()
    }
}
