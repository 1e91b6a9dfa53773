//! What etcd's log says of leases, from its beginning, read past whatever is broken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, EventType, GetOptions, WatchOptions};
use palisade_test_support::{eventually, within};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::common::{LIMIT, pause, spawn};

const PREFIX: &str = "/palisade/v1/";
/// In no name of a resource.
const MARKER: &str = "/palisade/v1/lease/~";
/// Before etcd is asked again for its log.
const AGAIN: Duration = Duration::from_millis(200);
/// A connection that a fault has made mute is left.
const MUTE: Duration = Duration::from_secs(15);

/// A lease from its grant to its end.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) resource: String,
    pub(super) session: String,
    pub(super) request: String,
    pub(super) holder: String,
    pub(super) token: i64,
    pub(super) granted: i64,
    pub(super) ended: Option<i64>,
}

/// How to reach etcd past all links.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) endpoints: Vec<String>,
    pub(super) user: Option<(String, String)>,
}

impl Door {
    pub(super) async fn open(&self) -> Result<Client, etcd_client::Error> {
        let mut options = ConnectOptions::new().with_connect_timeout(MUTE);
        if let Some((name, password)) = &self.user {
            options = options.with_user(name.clone(), password.clone());
        }
        Client::connect(&self.endpoints, Some(options)).await
    }
}

/// One history of a store. A restore begins another one.
#[derive(Debug, Default)]
struct History {
    /// In the order in which they were granted.
    holds: Vec<Held>,
    /// By key, the hold that has not ended.
    open: BTreeMap<String, usize>,
    /// The last revision whose events are all in.
    read: i64,
    markers: BTreeSet<String>,
    /// Whether its beginning may have been compacted before anybody could read it: after a restore.
    starts_late: bool,
    /// What makes it of no use.
    broken: Option<String>,
}

impl History {
    fn take(&mut self, event: &etcd_client::Event) {
        let Some(kv) = event.kv() else { return };
        let key = kv.key_str().unwrap_or_default();
        if key == MARKER {
            self.markers
                .insert(kv.value_str().unwrap_or_default().to_owned());
            return;
        }
        if let Some(before) = self.open.remove(key) {
            self.holds[before].ended = Some(kv.mod_revision());
        }
        if event.event_type() == EventType::Put {
            self.open.insert(key.to_owned(), self.holds.len());
            self.holds.push(held(kv.value(), kv.mod_revision()));
        }
    }
}

/// Reads the log of one history all along.
#[derive(Debug)]
struct Reader {
    door: Door,
    history: Arc<Mutex<History>>,
    task: JoinHandle<()>,
}

impl Reader {
    fn start(door: Door) -> Self {
        let history = Arc::<Mutex<History>>::default();
        let task = spawn(read_on(door.clone(), Arc::clone(&history)));
        Self {
            door,
            history,
            task,
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut History) -> T) -> T {
        look(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until all that is in the log now is read.
    async fn catch_up(&self, mark: &str) {
        let marked = async || {
            let Ok(mut etcd) = self.door.open().await else {
                return false;
            };
            etcd.put(MARKER, mark, None).await.is_ok()
        };
        eventually("the log is marked", LIMIT, marked)
            .await
            .unwrap();
        let read = async || self.with(|history| history.markers.contains(mark));
        eventually("the log is read", LIMIT, read).await.unwrap();
        let broken = self.with(|history| history.broken.clone());
        assert_eq!(broken, None, "the log is not whole");
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read_on(door: Door, history: Arc<Mutex<History>>) {
    loop {
        // Whatever ends it, it goes on where it was.
        let _ended = read_once(&door, &history).await;
        pause(AGAIN).await;
    }
}

async fn read_once(door: &Door, history: &Mutex<History>) -> Result<(), etcd_client::Error> {
    let mut etcd = door.open().await?;
    let locked = || history.lock().unwrap_or_else(PoisonError::into_inner);
    let from = locked().read + 1;
    let prefix = format!("{PREFIX}lease/");
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(from)
        .with_progress_notify();
    let mut stream = etcd.watch(prefix, Some(options)).await?;
    loop {
        let Ok(next) = within("the log goes on", MUTE, stream.message()).await else {
            return Ok(());
        };
        let Some(response) = next? else {
            return Ok(());
        };
        let mut history = locked();
        if response.canceled() {
            let compacted = response.compact_revision();
            if compacted > 0 && history.read == 0 && history.starts_late {
                history.read = compacted - 1;
            } else if compacted > 0 {
                history.broken = Some(format!("compacted: {compacted}"));
            }
            return Ok(());
        }
        for event in response.events() {
            history.take(event);
        }
        // Events of one revision come together.
        let mut kvs = response.events().iter().filter_map(|event| event.kv());
        if let Some(last) = kvs.next_back() {
            history.read = history.read.max(last.mod_revision());
        }
    }
}

/// Of a key that is no lease most is empty.
fn held(value: &[u8], revision: i64) -> Held {
    let record: Value = serde_json::from_slice(value).unwrap_or_default();
    let text = |field: &str| record[field].as_str().unwrap_or_default().to_owned();
    let generation = &record["generation"];
    let number = |field: &str| generation[field].as_i64().unwrap_or_default();
    Held {
        resource: text("resource"),
        session: text("session"),
        request: text("request"),
        holder: text("holder"),
        token: number("base") + revision - number("since_revision"),
        granted: revision,
        ended: None,
    }
}

/// The log of a store in all its histories.
#[derive(Debug)]
pub(super) struct Log {
    reader: Reader,
    /// Those that a restore has ended.
    before: Vec<Vec<Held>>,
    marks: u32,
}

impl Log {
    pub(super) fn follow(door: Door) -> Self {
        Self {
            reader: Reader::start(door),
            before: Vec::new(),
            marks: 0,
        }
    }

    /// Members have come or gone.
    pub(super) fn reach(&mut self, door: Door) {
        self.reader.task.abort();
        self.reader.door = door.clone();
        self.reader.task = spawn(read_on(door, Arc::clone(&self.reader.history)));
    }

    /// The history so far has ended, and another one begins at the same place. What was committed last is read from
    /// another etcd on a copy of the old one's data.
    pub(super) async fn begins_anew(&mut self, copy: Door, next: Door) {
        let old = Reader::start(copy);
        // A restore may have begun it, and have forgotten what came before.
        let is_first = self.before.is_empty();
        old.with(|history| history.starts_late = !is_first);
        old.catch_up("the end").await;
        self.before.push(old.with(|history| history.holds.clone()));
        drop(old);
        self.reader = Reader::start(next);
        self.reader.with(|history| history.starts_late = true);
    }

    /// All leases of all histories, in the order in which they were granted in each.
    pub(super) async fn histories(&mut self) -> Vec<Vec<Held>> {
        self.marks += 1;
        self.reader.catch_up(&format!("mark {}", self.marks)).await;
        let mut all = self.before.clone();
        all.push(self.reader.with(|history| history.holds.clone()));
        all
    }

    async fn keys(&self, prefix: &str) -> Option<Vec<(String, Held)>> {
        let mut etcd = self.reader.door.open().await.ok()?;
        let options = GetOptions::new().with_prefix();
        let found = etcd.get(prefix, Some(options)).await.ok()?;
        let read = |kv: &etcd_client::KeyValue| {
            let key = kv.key_str().unwrap_or_default().to_owned();
            (key, held(kv.value(), kv.mod_revision()))
        };
        let found = found.kvs().iter().map(read);
        Some(found.filter(|(key, _)| key != MARKER).collect())
    }

    /// What is held now, and by which token.
    pub(super) async fn held(&self) -> Option<BTreeSet<(String, i64)>> {
        let held = self.keys(&format!("{PREFIX}lease/")).await?.into_iter();
        let named = held.map(|(_, held)| (held.resource, held.token));
        Some(named.collect())
    }

    /// How many wait now.
    pub(super) async fn queued(&self) -> Option<usize> {
        Some(self.keys(&format!("{PREFIX}queue/")).await?.len())
    }

    /// No session, no lease, no place and no etcd lease.
    pub(super) async fn is_empty(&self) -> bool {
        let names = [format!("{PREFIX}generation"), format!("{PREFIX}revoked")];
        let Some(keys) = self.keys(PREFIX).await else {
            return false;
        };
        let Ok(mut etcd) = self.reader.door.open().await else {
            return false;
        };
        let leases = etcd.leases().await;
        keys.iter().all(|(key, _)| names.contains(key))
            && leases.is_ok_and(|leases| leases.leases().is_empty())
    }
}
