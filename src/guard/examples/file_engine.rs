//! A small storage engine of one's own, with its fences in memory and in its log: whoever was replaced
//! cannot write, also after a crash.
//!
//! ```sh
//! cargo run -p palisade-guard --example file_engine -- data.log
//! ```
//!
//! The engine is an append-only log of values and of fences. Two things make it safe. A write holds its
//! permit from before it looks at anything until its record is on the disk; and a fence is on the disk before
//! its holder writes, so that a restart knows of it. Everything else is an ordinary log.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use palisade_guard::GuardError;
use palisade_guard::memory::{Durability, FenceTable, Handle, Sealed};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};

type Failed = Box<dyn Error + Send + Sync>;

/// Values by name, each belonging to the resource of its name.
#[derive(Debug)]
pub(crate) struct Engine {
    log: Arc<Log>,
    fences: FenceTable<Fences>,
}

#[derive(Debug)]
struct Log {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    values: BTreeMap<ResourceName, u64>,
    /// A flush has failed: nobody knows what is on the disk, and asking again does not tell.
    is_broken: bool,
}

/// The engine's log, as what keeps the fences.
#[derive(Debug)]
struct Fences(Arc<Log>);

/// One line of the log; the checksum tells a torn one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Record {
    Fence(Grant),
    Value(ResourceName, u64),
}

impl Durability for Fences {
    /// A service would flush on a thread for blocking work; here the one task may as well wait itself.
    async fn raise(&self, fence: &Grant) -> Result<(), Failed> {
        self.0.append(&Record::Fence(fence.clone()))
    }
}

impl Engine {
    /// Opens the log, or makes it; what a crash has torn off its end is cut away.
    ///
    /// # Errors
    /// Another process has it open, or the disk fails.
    pub(crate) fn open(path: &Path) -> Result<Self, Failed> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path)?;
        // Fences in memory are those of one process: there must not be another.
        file.try_lock()?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let (records, whole) = read(&text);
        file.set_len(whole.try_into()?)?;
        file.seek(SeekFrom::End(0))?;
        // What an earlier process has written may not be flushed; nor may the file's own name.
        file.sync_all()?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
        let (mut values, mut fences) = (BTreeMap::new(), Vec::new());
        for record in records {
            match record {
                Record::Fence(fence) => fences.push(fence),
                Record::Value(name, value) => drop(values.insert(name, value)),
            }
        }
        let state = State {
            file,
            values,
            is_broken: false,
        };
        let log = Arc::new(Log {
            state: Mutex::new(state),
        });
        let fences = FenceTable::recovered(Fences(Arc::clone(&log)), fences)?;
        Ok(Self { log, fences })
    }

    /// Takes the resource over. Once this returns, no earlier holder writes; read after it.
    ///
    /// # Errors
    /// [`GuardError`].
    pub(crate) async fn seal(&self, grant: &Grant) -> Result<Writer<'_>, GuardError> {
        let sealed: Sealed = self.fences.seal(grant).await?;
        let handle = self.fences.resolve(&sealed)?;
        Ok(Writer {
            engine: self,
            handle,
        })
    }

    /// Writes for a holder that is not in this process, with the grant of its request.
    ///
    /// # Errors
    /// [`GuardError`], or the disk fails.
    #[allow(dead_code, reason = "the tests are such a holder")]
    pub(crate) fn put_for(&self, grant: &Grant, value: u64) -> Result<(), Failed> {
        let _permit = self.fences.admit(grant)?;
        self.log
            .append(&Record::Value(grant.resource.clone(), value))
    }

    pub(crate) fn get(&self, name: &ResourceName) -> Option<u64> {
        self.log.state().values.get(name).copied()
    }

    /// The token that was last sealed.
    pub(crate) fn fence(&self, name: &ResourceName) -> Option<FencingToken> {
        self.fences.fence(name).map(|fence| fence.token)
    }
}

/// The one who may write a resource, until another seals it.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    engine: &'a Engine,
    handle: Handle,
}

impl Writer<'_> {
    /// Sets the value. It is on the disk when this returns.
    ///
    /// # Errors
    /// [`GuardError::Stale`] once another has sealed, or the disk fails.
    pub(crate) fn put(&self, value: u64) -> Result<(), Failed> {
        // Held until the record is on the disk: a seal waits for it, and reads it then.
        let _permit = self.handle.enter()?;
        let name = self.handle.grant().resource.clone();
        self.engine.log.append(&Record::Value(name, value))
    }
}

impl Log {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record and flushes it, then lets readers see it.
    fn append(&self, record: &Record) -> Result<(), Failed> {
        let mut state = self.state();
        if state.is_broken {
            return Err(Failed::from(
                "an earlier flush has failed; open the log again",
            ));
        }
        state.is_broken = true;
        state.file.write_all(line(record).as_bytes())?;
        state.file.sync_data()?;
        state.is_broken = false;
        if let Record::Value(name, value) = record {
            state.values.insert(name.clone(), *value);
        }
        Ok(())
    }
}

fn line(record: &Record) -> String {
    let body = match record {
        Record::Fence(grant) => format!("fence {grant}"),
        Record::Value(name, value) => format!("value {name} {value}"),
    };
    format!("{:016x} {body}\n", checksum(body.as_bytes()))
}

/// FNV-1a: enough to tell a torn line from a whole one.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The whole records at the start, and how many bytes they are.
fn read(text: &[u8]) -> (Vec<Record>, usize) {
    let (mut records, mut whole) = (Vec::new(), 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let Some(record) = parse(line) else { break };
        records.push(record);
        whole += line.len();
    }
    (records, whole)
}

fn parse(line: &[u8]) -> Option<Record> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (sum, body) = line.split_once(' ')?;
    if u64::from_str_radix(sum, 16) != Ok(checksum(body.as_bytes())) {
        return None;
    }
    let (kind, rest) = body.split_once(' ')?;
    match kind {
        "fence" => Some(Record::Fence(rest.parse().ok()?)),
        "value" => {
            let (name, value) = rest.split_once(' ')?;
            Some(Record::Value(name.parse().ok()?, value.parse().ok()?))
        }
        _ => None,
    }
}

/// Two holders, one after the other, and a restart. Returns what the last reader saw.
pub(crate) async fn demonstrate(path: &Path) -> Result<Option<u64>, Failed> {
    let orders = ResourceName::new("orders")?;
    let earlier = {
        let engine = Engine::open(path)?;
        engine.fence(&orders).map_or(0, FencingToken::get)
    };
    // A coordinator gives these; here they are made up, above whatever the log has seen.
    let granted = |token| {
        Ok::<_, Failed>(Grant {
            resource: orders.clone(),
            token: FencingToken::new(earlier + token)?,
            holder: HolderId::from_bytes([u8::try_from(token)?; 16]),
        })
    };
    {
        let engine = Engine::open(path)?;
        let first = engine.seal(&granted(1)?).await?;
        first.put(100)?;
        println!("the first holder has written {:?}", engine.get(&orders));
        let second = engine.seal(&granted(2)?).await?;
        println!("the second holder reads {:?}", engine.get(&orders));
        match first.put(101) {
            Err(error) => println!("the first is refused: {error}"),
            Ok(()) => return Err(Failed::from("a stale writer has written")),
        }
        second.put(200)?;
    }
    let engine = Engine::open(path)?;
    println!(
        "after a restart the fence is at {:?}",
        engine.fence(&orders)
    );
    if engine.seal(&granted(1)?).await.is_ok() {
        return Err(Failed::from("a restart has lowered the fence"));
    }
    Ok(engine.get(&orders))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let path = std::env::args().nth(1).ok_or("which file?")?;
    let value = demonstrate(Path::new(&path)).await?;
    println!("and the value is {value:?}");
    Ok(())
}
