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
    /// Through a handle of its own.
    Handle,
    /// By what the seal has given.
    Sealed,
    /// By the name in a grant, as one comes with a request.
    Name,
}

/// Of how many resources each thread picks one, in no order: its own one again and again, its own few, which stay
/// in the processor's cache, or all.
const ALL: u32 = RESOURCES;
const HOT: u32 = 512;

const WAYS: [(Way, u32, &str); 7] = [
    (Way::Handle, 1, "handle-one"),
    (Way::Handle, HOT, "handle-hot"),
    (Way::Handle, ALL, "handle-all"),
    (Way::Sealed, HOT, "sealed-hot"),
    (Way::Sealed, ALL, "sealed-all"),
    (Way::Name, HOT, "name-hot"),
    (Way::Name, ALL, "name-all"),
];

/// What a reader of the table has to know.
pub(super) const LEGEND: &str = "memory: one enter and leave, by two threads at once, in a table of 100,000 resources; through a handle, by \
     what seal has given, by the name in a grant; of one resource for each thread (one), of 512 for each, which \
     stay in its cache (hot), or of all, in no order (all)";

/// A table in which everything is sealed.
#[derive(Debug)]
pub(super) struct Sealing {
    table: FenceTable<Volatile>,
    sealed: Vec<Sealed>,
    handles: Vec<Handle>,
    /// With names of their own.
    grants: Vec<Grant>,
}

impl Sealing {
    pub(super) async fn all() -> Result<Self, Failure> {
        let table = FenceTable::new(Volatile);
        let mut sealed = Vec::new();
        for number in 0..RESOURCES {
            sealed.push(table.seal(&grant(number)?).await?);
        }
        let grants: Result<Vec<Grant>, _> = (0..RESOURCES).map(grant).collect();
        let handles: Result<Vec<Handle>, _> =
            sealed.iter().map(|sealed| table.resolve(sealed)).collect();
        Ok(Self {
            handles: handles?,
            grants: grants?,
            table,
            sealed,
        })
    }

    pub(super) fn round(
        &self,
        args: &GuardBenchArgs,
        findings: &mut Findings,
    ) -> Result<(), Failure> {
        for (way, of, name) in WAYS {
            let threads = thread::scope(|scope| {
                let start = |number| scope.spawn(move || self.work(way, of, number, args.round));
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
    fn work(&self, way: Way, of: u32, number: u32, length: Duration) -> Result<Sample, Failure> {
        let clock = Stopwatch::start();
        let mut random = number + 1;
        let mut chunks = 0_usize;
        let first = if of < RESOURCES { number * of } else { 0 };
        loop {
            for _ in 0..CHUNK {
                // Marsaglia's xorshift: a nanosecond, and no order that a processor could foresee.
                random ^= random << 13;
                random ^= random >> 17;
                random ^= random << 5;
                let at = usize::try_from(first + random % of).unwrap_or_default();
                match way {
                    Way::Handle => drop(self.handles[at].enter()?),
                    Way::Sealed => drop(self.table.enter(&self.sealed[at])?),
                    Way::Name => drop(self.table.admit(&self.grants[at])?),
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
}

fn grant(number: u32) -> Result<Grant, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::other(format!("no grant: {error}"));
    Ok(Grant {
        resource: ResourceName::new(format!("bench/{number}")).map_err(|error| wrong(&error))?,
        token: FencingToken::new(1).map_err(|error| wrong(&error))?,
        holder: HolderId::from_bytes([7; 16]),
    })
}
