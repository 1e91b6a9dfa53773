//! How much there is of everything that could leak, at one moment.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::time::Duration;

use etcd_client::{ConnectOptions, GetOptions};
use palisade_client::Moment;
use palisade_test_support::{Coordinator, within};
use serde_json::{Value, json};
use sqlx::{PgPool, Row as _};

use crate::judge::Sample;
use crate::rig::{Rig, STEADY};
use crate::{Failed, now};

/// What is away just now is not sampled.
const LIMIT: Duration = Duration::from_secs(3);
const PREFIX: &str = "/palisade/v1/";

impl Sample {
    pub(crate) async fn take(rig: &mut Rig) -> Self {
        let mut values = BTreeMap::new();
        let urls = rig.etcd.endpoints();
        if let Ok(Ok(found)) = within("etcd", LIMIT, Box::pin(in_etcd(&urls))).await {
            values.extend(found);
        }
        for (place, one) in [("steady", &mut rig.steady), ("mortal", &mut rig.mortal)] {
            values.extend(of_coordinator(place, one).await);
        }
        let client = &rig.workers[STEADY];
        values.extend(of_process("client", client.process.id()));
        values.extend(
            client
                .status()
                .map(|status| ("client.tasks".to_owned(), status.tasks)),
        );
        if let Ok(Ok(found)) = within("PostgreSQL", LIMIT, in_postgres(&rig.admin)).await {
            values.extend(found);
        }
        Self { values, at: now() }
    }
}

type Found = Vec<(String, u64)>;

/// Keys by kind, and etcd's leases.
async fn in_etcd(urls: &[String]) -> Result<Found, Failed> {
    let options = ConnectOptions::new().with_timeout(LIMIT);
    let mut client = etcd_client::Client::connect(urls, Some(options)).await?;
    let all = GetOptions::new().with_prefix().with_keys_only();
    let found = client.get("", Some(all)).await?;
    let mut kinds: BTreeMap<String, u64> = [
        "session", "lease", "queue", "last", "delay", "notice", "other",
    ]
    .map(|kind| (kind.to_owned(), 0))
    .into();
    for key in found.kvs() {
        let key = key.key_str().unwrap_or_default();
        let own = key.strip_prefix(PREFIX).unwrap_or_default();
        let kind = match own.split_once('/') {
            Some((kind, _)) => kind,
            // These stay: how tokens grow, and what the last revocation ended.
            None if matches!(own, "generation" | "revoked") => continue,
            None => "other",
        };
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    let leases = client.leases().await?;
    let leases = u64::try_from(leases.leases().len())?;
    let keys = kinds
        .into_iter()
        .map(|(kind, count)| (format!("etcd.{kind}"), count));
    Ok(keys.chain([("etcd.leases".to_owned(), leases)]).collect())
}

async fn of_coordinator(place: &str, coordinator: &mut Coordinator) -> Found {
    let Ok(process) = coordinator.process() else {
        return Vec::new();
    };
    let mut found = of_process(place, process.id());
    let page = within("metrics", LIMIT, coordinator.http_get("/metrics")).await;
    let Ok(Ok((200, text))) = page else {
        return found;
    };
    for what in ["tasks", "streams", "watches", "waiters", "leases_active"] {
        let series = format!("palisade_{what} ");
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(&series)?.parse().ok());
        found.extend(value.map(|value| (format!("{place}.{what}"), value)));
    }
    found
}

/// Memory that is resident, open handles and threads.
fn of_process(place: &str, id: u32) -> Found {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_whitespace().next()?.parse().ok()
    };
    let handles = fs::read_dir(format!("/proc/{id}/fd"))
        .ok()
        .map(Iterator::count);
    let handles = handles.and_then(|count| u64::try_from(count).ok());
    let found = [
        ("rss_kib", field("VmRSS:")),
        ("threads", field("Threads:")),
        ("handles", handles),
    ];
    let named = found
        .into_iter()
        .filter_map(|(what, value)| Some((what, value?)));
    named
        .map(|(what, value)| (format!("{place}.{what}"), value))
        .collect()
}

async fn in_postgres(admin: &PgPool) -> Result<Found, Failed> {
    let text = "SELECT \
        (SELECT count(*) FROM palisade.fence) AS fences, \
        (SELECT count(*) FROM palisade.effect) AS effects, \
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') AS advisory_locks, \
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections, \
        (SELECT count(*) FROM pg_prepared_xacts) AS prepared, \
        (SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables) AS dead_rows, \
        (SELECT sum(pg_total_relation_size(oid))::bigint / 1024 FROM pg_class \
            WHERE relnamespace = 'palisade'::regnamespace AND relkind = 'r') AS kib";
    let row = sqlx::query(text).fetch_one(admin).await?;
    let mut found = Vec::new();
    for what in [
        "fences",
        "effects",
        "advisory_locks",
        "connections",
        "prepared",
        "dead_rows",
        "kib",
    ] {
        let value: i64 = row.try_get(what)?;
        found.push((format!("postgres.{what}"), u64::try_from(value)?));
    }
    Ok(found)
}

/// What a soak has recorded: the first rest, the churn, the last rest.
pub(crate) fn read(path: &str) -> Result<(Sample, Vec<Sample>, Sample), Failed> {
    let text = fs::read_to_string(path)?;
    let (mut first, mut churn, mut last) = (None, Vec::new(), None);
    for line in text.lines() {
        let line: Value = serde_json::from_str(line)?;
        let seconds = line["second"].as_u64().ok_or("a sample has no second")?;
        let sample = Sample {
            values: serde_json::from_value(line["values"].clone())?,
            at: Moment(Duration::from_secs(seconds)),
        };
        match line["phase"].as_str() {
            Some("churn") => churn.push(sample),
            Some("rest") if churn.is_empty() => first = Some(sample),
            Some("rest") => last = Some(sample),
            _ => {}
        }
    }
    let whole = first.zip(last).ok_or("the file is not of a whole soak")?;
    Ok((whole.0, churn, whole.1))
}

/// Keeps every sample in a file, to be looked at when something has leaked.
#[derive(Debug)]
pub(crate) struct Recorder {
    file: File,
    begin: Moment,
}

impl Recorder {
    pub(crate) fn create(path: &str) -> Result<Self, Failed> {
        if let Some(dir) = std::path::Path::new(path).parent() {
            fs::create_dir_all(dir)?;
        }
        let (file, begin) = (File::create(path)?, now());
        Ok(Self { file, begin })
    }

    pub(crate) fn keep(&mut self, phase: &str, sample: &Sample) -> Result<(), Failed> {
        let second = self.begin.until(sample.at).as_secs();
        let line = json!({"second": second, "phase": phase, "values": sample.values});
        writeln!(self.file, "{line}")?;
        Ok(())
    }
}
