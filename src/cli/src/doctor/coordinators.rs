//! The coordinators, each by itself and all together.

use std::collections::BTreeSet;
use std::env;

use palisade_client::{
    Client, ClientError, CoordinatorStatus, EndpointStatus, Generation, StoreKind, Unavailable,
};

use super::etcd;
use super::report::{Check, Report};
use crate::args::{DEFAULT_ADDR, DoctorArgs};
use crate::clock::{self, Stopwatch};
use crate::failure::Failure;
use crate::progress;
use crate::table::plain;
use crate::units::{show_duration, show_roughly};

const REACHED: &str = "coordinator";
const READY: &str = "coordinator-ready";
const TOGETHER: &str = "coordinators";
const BEHIND: &str = "coordinators-etcd";
/// A coordinator that was just started makes a generation; the others see it with their next step.
const LOOKS: usize = 5;

/// What they said.
#[derive(Debug, Default)]
pub(super) struct Seen {
    statuses: Vec<(String, CoordinatorStatus)>,
}

impl Seen {
    /// The highest token that any of them can have issued.
    pub(super) fn highest_token(&self) -> Option<u64> {
        let highest =
            |status: &CoordinatorStatus| highest(status.generation.as_ref()?, status.revision);
        self.statuses
            .iter()
            .filter_map(|(_, status)| highest(status))
            .max()
    }
}

fn highest(generation: &Generation, revision: i64) -> Option<u64> {
    let since = revision.saturating_sub(generation.since_revision).max(0);
    u64::try_from(generation.base.saturating_add(since)).ok()
}

pub(super) async fn look(args: &DoctorArgs, report: &mut Report) -> Result<Seen, Failure> {
    let client = crate::connect(&args.client)?;
    let mut seen = Seen::default();
    for addr in client.endpoints() {
        let doing = format!("asking the coordinator at {addr}");
        let watch = Stopwatch::start();
        let status = progress::during(&doing, client.status_of(&addr)).await;
        match status {
            Ok(status) => {
                // The first call also connects.
                let took = watch.elapsed();
                report.add(reached(&addr, &status).value(
                    "answer_us",
                    u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                ))?;
                report.add(ready(&addr, &status))?;
                seen.statuses.push((addr, status));
            }
            Err(error) => report.add(away(args, &addr, &error))?,
        }
    }
    let doing = "comparing the coordinators";
    seen = progress::during(doing, settled(&client, seen)).await;
    report.add_all(together(&seen))?;
    Ok(seen)
}

fn subject(addr: &str) -> String {
    format!("coordinator {addr}")
}

fn reached(addr: &str, status: &CoordinatorStatus) -> Check {
    let store = match status.store {
        Some(StoreKind::Etcd) => "etcd",
        Some(StoreKind::Embedded) => "embedded",
        Some(StoreKind::Memory) => "memory",
        _ => "unknown",
    };
    let up = show_roughly(status.uptime);
    let version = plain(&status.version);
    let found = format!("answers; version {version}, store {store}, up for {up}");
    let check = match status.store {
        Some(StoreKind::Memory) => {
            let advice = "all leases are lost when it ends: for tests only";
            Check::warn(REACHED, subject(addr), found, advice)
        }
        _ => Check::ok(REACHED, subject(addr), found),
    };
    check
        .value("version", &*status.version)
        .value("store", store)
        .value("cluster_id", &*status.cluster_id)
        .value("instance_id", &*status.instance_id)
}

fn away(args: &DoctorArgs, addr: &str, error: &ClientError) -> Check {
    let nobody_named_it = addr == DEFAULT_ADDR && env::var_os("PALISADE_ADDR").is_none();
    let looks_elsewhere = !args.etcd.is_empty() || args.postgres.is_some() || args.sqlite.is_some();
    match error {
        ClientError::Denied { .. } => {
            let found = "answers, but does not tell these credentials how it stands";
            let advice = "use credentials with the verb admin for the prefix \"\" (--token-file, --cert-file)";
            Check::warn(REACHED, subject(addr), found, advice)
        }
        ClientError::NotServed => {
            let found = "what answers is no Palisade coordinator, or one that is too old";
            let advice = "name the address that a coordinator serves gRPC on (its --listen)";
            Check::fail(REACHED, subject(addr), found, advice)
        }
        ClientError::Unavailable {
            cause: Unavailable::Unreachable,
            ..
        } if nobody_named_it && looks_elsewhere => {
            let found = "nothing is there, and none was named";
            let advice = "name the coordinators with --addr or PALISADE_ADDR";
            Check::warn(REACHED, subject(addr), found, advice)
        }
        ClientError::Unavailable { cause, .. } => {
            let (found, advice) = match cause {
                Unavailable::Unreachable => (
                    "no connection",
                    "see that it runs, its address, and that http or https is right",
                ),
                Unavailable::NoAnswer => (
                    "no answer in time",
                    "see that it is not frozen or overloaded, and that this is where it serves gRPC (--listen)",
                ),
                _ => ("it does not serve the question", "look at its log"),
            };
            Check::fail(REACHED, subject(addr), found, advice)
        }
        other => {
            let advice = "look at its log; PALISADE_LOG=debug says more here";
            Check::fail(REACHED, subject(addr), other.to_string(), advice)
        }
    }
}

fn ready(addr: &str, status: &CoordinatorStatus) -> Check {
    if status.ready {
        let usage = &status.usage;
        let found = format!(
            "would grant now; {} sessions attached, {} requests wait, {} watch",
            usage.streams, usage.waiters, usage.watchers
        );
        return Check::ok(READY, subject(addr), found);
    }
    let reasons = status.not_ready_reasons.join(", ");
    let advice = match status.not_ready_reasons.first().map(String::as_str) {
        _ if status.draining => {
            "it is on its way out: stop it, and start it again if it is to serve"
        }
        Some("STORE_UNAVAILABLE") => {
            "it does not reach its store: see etcd (palisade doctor --etcd) and its log"
        }
        Some("HISTORY_REGRESSED") => {
            "it makes no new generation: see its machine's clock and its log"
        }
        Some("WRONG_CLUSTER") => "its etcd endpoints are of different clusters: correct store.etcd",
        Some("LIMIT_REACHED") => "etcd is out of space: compact, defragment, disarm its alarm",
        _ => "look at its log",
    };
    let found = format!("grants nothing now: {}", plain(&reasons));
    Check::fail(READY, subject(addr), found, advice)
        .value("reasons", status.not_ready_reasons.clone())
}

/// Asks once more while they trust different generations: one that has just been made is not known to all.
async fn settled(client: &Client, mut seen: Seen) -> Seen {
    for _ in 0..LOOKS {
        // Those of different stores never come to agree.
        if generations(&seen).len() <= 1 || clusters(&seen).len() > 1 || !own(&seen).is_empty() {
            break;
        }
        clock::pause(std::time::Duration::from_secs(1)).await;
        let again = client.statuses().await;
        let statuses = again.into_iter().filter_map(
            |EndpointStatus {
                 endpoint, status, ..
             }| Some((endpoint, status.ok()?)),
        );
        let statuses: Vec<_> = statuses.collect();
        if statuses.len() < seen.statuses.len() {
            break;
        }
        seen = Seen { statuses };
    }
    seen
}

fn generations(seen: &Seen) -> BTreeSet<&str> {
    let told = seen.statuses.iter();
    told.filter_map(|(_, status)| Some(&*status.generation.as_ref()?.nonce))
        .collect()
}

fn clusters(seen: &Seen) -> Vec<&str> {
    let told = seen.statuses.iter().map(|(_, one)| &*one.cluster_id);
    let clusters: BTreeSet<&str> = told.filter(|id| !id.is_empty()).collect();
    clusters.into_iter().collect()
}

/// Those with a store that nobody else uses.
fn own(seen: &Seen) -> BTreeSet<&str> {
    let is_own = |one: &CoordinatorStatus| {
        matches!(one.store, Some(StoreKind::Embedded | StoreKind::Memory))
    };
    let told = seen.statuses.iter();
    told.filter(|(_, one)| is_own(one))
        .map(|(_, one)| &*one.instance_id)
        .collect()
}

/// What only all of them together show.
fn together(seen: &Seen) -> Vec<Check> {
    let mut checks = Vec::new();
    let versions: BTreeSet<&str> = seen.statuses.iter().map(|(_, one)| &*one.version).collect();
    if versions.len() > 1 {
        let versions: Vec<&str> = versions.into_iter().collect();
        let found = format!(
            "they are of different versions: {}",
            plain(&versions.join(", "))
        );
        let advice = "finish the update";
        checks.push(Check::warn(TOGETHER, TOGETHER, found, advice).value("versions", versions));
    }
    if seen.statuses.len() < 2 {
        return checks;
    }
    let (own, clusters) = (own(seen), clusters(seen));
    let all = seen.statuses.len();
    checks.push(if own.len() > 1 || (!own.is_empty() && !clusters.is_empty()) {
        let found = "they do not share a store: each grants what the other has granted";
        let advice = "name coordinators of one etcd, or one coordinator with a file of its own";
        Check::fail(TOGETHER, TOGETHER, found, advice)
    } else if clusters.len() > 1 {
        let found = format!("they use different etcd clusters: {}", clusters.join(", "));
        let advice = "name coordinators of one cluster: these grant what the others have granted";
        Check::fail(TOGETHER, TOGETHER, found, advice).value("cluster_ids", clusters)
    } else if generations(seen).len() > 1 {
        let found = "they trust different generations, and go on doing so";
        let advice = "see that all use the same store.etcd_prefix, and look at their logs: with different \
             prefixes each grants what the other has granted";
        Check::fail(TOGETHER, TOGETHER, found, advice)
    } else {
        Check::ok(TOGETHER, TOGETHER, format!("{all} share one store and one generation"))
    });
    checks
}

/// What they said against what etcd itself shows.
pub(super) fn against_etcd(seen: &Seen, etcd: &etcd::Seen) -> Vec<Check> {
    let mut checks = Vec::new();
    let Some(cluster) = etcd.cluster.map(|id| format!("{id:x}")) else {
        return checks;
    };
    for (addr, status) in &seen.statuses {
        if status.store != Some(StoreKind::Etcd) {
            let found = "it does not use etcd, though --etcd was named";
            let advice = "name the etcd of these coordinators, or none";
            checks.push(Check::fail(BEHIND, subject(addr), found, advice));
            continue;
        }
        if !status.cluster_id.is_empty() && status.cluster_id != cluster {
            let found = format!(
                "it uses cluster {}; --etcd names {cluster}",
                plain(&status.cluster_id)
            );
            let advice = "name the etcd of these coordinators: what is said of etcd here is not about theirs";
            checks.push(Check::fail(BEHIND, subject(addr), found, advice));
            continue;
        }
        let theirs = status.generation.as_ref().map(|one| one.nonce.clone());
        let there = etcd
            .generation()
            .map(|one| hex::encode(one.nonce.as_bytes()));
        if theirs.is_some() && theirs != there {
            let found = "its generation is not the one below --etcd-prefix";
            let advice = "name the prefix of these coordinators (--etcd-prefix); if it is right, ask again: \
                 a new generation may have been made meanwhile";
            checks.push(Check::warn(BEHIND, subject(addr), found, advice));
        }
        let (least, min) = (etcd.least_ttl, status.limits.min_ttl);
        if let Some(least) = least.filter(|least| *least > min && !min.is_zero()) {
            let found = format!(
                "it takes TTLs from {}, and etcd gives {} at the least",
                show_duration(min),
                show_duration(least)
            );
            let advice = "raise limits.min_ttl: what is granted is longer than what was asked for";
            checks.push(Check::warn(BEHIND, subject(addr), found, advice));
        }
    }
    if checks.is_empty() && !seen.statuses.is_empty() {
        let found = format!("they use this etcd, cluster {cluster}, and this prefix");
        checks.push(Check::ok(BEHIND, TOGETHER, found));
    }
    checks
}
