//! The etcd behind the coordinators, as they meet it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use palisade_coordinator::clock::{Clock, SystemClock};
use palisade_coordinator::config::EtcdAccess;
use palisade_coordinator::domain::{Generation, Revision};
use palisade_coordinator::entropy::SystemEntropy;
use palisade_coordinator::store::etcd::survey::{Member, Reading, Survey, SurveyError};

use super::report::{Check, Report};
use crate::args::DoctorArgs;
use crate::failure::Failure;
use crate::progress;
use crate::units::show_duration;

mod member;

/// Each is asked more than once: one answer may have met a pause.
const READS: usize = 5;
/// A read takes a round trip to the leader and one to a quorum. Beyond this an acquire is felt, and elections near.
const SLOW_READ: Duration = Duration::from_millis(100);
/// A write besides waits for disks. etcd's own advice is 10 ms for them.
const SLOW_WRITE: Duration = Duration::from_millis(200);
const READ: &str = "etcd-read";
const WRITE: &str = "etcd-write";

/// What other parts compare theirs with.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) cluster: Option<u64>,
    pub(super) reading: Option<(Option<Generation>, Revision)>,
    /// The shortest TTL that etcd gives, where it was tried.
    pub(super) least_ttl: Option<Duration>,
}

impl Seen {
    /// The generation below the prefix.
    pub(super) fn generation(&self) -> Option<Generation> {
        self.reading?.0
    }

    /// The highest token that can have been issued.
    pub(super) fn highest_token(&self) -> Option<u64> {
        let (generation, revision) = self.reading?;
        let generation = generation?;
        let since = revision.0.saturating_sub(generation.since_revision.0);
        Some(generation.base.saturating_add(since))
    }
}

pub(super) async fn look(args: &DoctorArgs, report: &mut Report) -> Result<Seen, Failure> {
    let access = access(args);
    let clock = SystemClock::shared();
    let mut reached = Vec::new();
    let mut members = Vec::new();
    for url in &args.etcd {
        let doing = format!("looking at etcd {url}");
        match progress::during(&doing, one(args, url, &access, &clock)).await {
            Err(error) => report.add(member::away(url, &error))?,
            Ok((survey, member)) => {
                if let Some(member) = &member {
                    report.add_all(member::checks(url, member))?;
                } else {
                    report.add(member::secretive(url))?;
                }
                members.extend(member.map(|member| (url.clone(), member)));
                reached.push((url, survey));
            }
        }
    }
    let Some((url, survey)) = reached.first() else {
        return Ok(Seen::default());
    };
    report.add_all(faults(&members))?;
    let voters = survey.voters().await.unwrap_or_default();
    report.add_all(member::whole(&members, voters, args.etcd.len()))?;
    let mut seen = Seen {
        cluster: members.first().map(|(_, member)| member.cluster),
        ..Seen::default()
    };
    for (url, survey) in &reached {
        let doing = format!("reading from etcd {url}");
        match progress::during(&doing, read(survey)).await {
            Ok((reading, took)) => {
                seen.reading = Some((reading.generation, reading.revision));
                report.add(read_check(url, took))?;
            }
            Err(error) => report.add(failed(READ, url, "a linearizable read", &error))?,
        }
    }
    if args.write {
        let doing = format!("writing to etcd {url}");
        let entropy = SystemEntropy::shared();
        match progress::during(&doing, survey.write(&entropy)).await {
            Ok(written) => {
                seen.least_ttl = Some(written.least_ttl);
                report.add(write_check(url, written.took, written.least_ttl))?;
            }
            Err(error) => report.add(failed(WRITE, url, "a small write", &error))?,
        }
    }
    Ok(seen)
}

fn access(args: &DoctorArgs) -> EtcdAccess {
    let known = &args.credentials;
    EtcdAccess {
        ca_file: known.etcd_ca_file.clone(),
        cert_file: known.etcd_cert_file.clone(),
        key_file: known.etcd_key_file.clone(),
        user: known.etcd_user.clone(),
        password_file: known.etcd_password_file.clone(),
        ..EtcdAccess::default()
    }
}

async fn one(
    args: &DoctorArgs,
    url: &str,
    access: &EtcdAccess,
    clock: &Arc<dyn Clock>,
) -> Result<(Survey, Option<Member>), SurveyError> {
    let limit = args.client.timeout;
    let survey = Survey::open(url, access, &args.etcd_prefix, clock, limit).await?;
    let member = survey.member().await?;
    Ok((survey, member))
}

/// The faults of each version, told once for all endpoints that have it.
fn faults(members: &[(String, Member)]) -> Vec<Check> {
    let mut versions: BTreeMap<&str, (BTreeSet<&str>, &Member)> = BTreeMap::new();
    for (url, member) in members {
        let of_version = versions.entry(&member.version);
        let (urls, _) = of_version.or_insert_with(|| (BTreeSet::new(), member));
        urls.insert(url);
    }
    let versions = versions.into_values();
    versions
        .map(|(urls, member)| member::version(urls, member))
        .collect()
}

/// The last of a few reads, and the middle one of how long they took.
async fn read(survey: &Survey) -> Result<(Reading, Duration), SurveyError> {
    let mut last = survey.read().await?;
    // The first one is left out: the connection was new.
    let mut took = Vec::new();
    for _ in 0..READS {
        last = survey.read().await?;
        took.push(last.took);
    }
    took.sort_unstable();
    let middle = took.get(READS / 2).copied();
    Ok((last, middle.unwrap_or(last.took)))
}

fn read_check(url: &str, took: Duration) -> Check {
    let found = format!("a linearizable read takes {}", millis(took));
    let check = if took > SLOW_READ {
        let advice = "look for slow disks, a network between the members, or other users of this etcd; \
             every acquire waits for such a step";
        Check::warn(READ, subject(url), found, advice)
    } else {
        Check::ok(READ, subject(url), found)
    };
    check.value("read_us", micros(took))
}

fn write_check(url: &str, took: Duration, least_ttl: Duration) -> Check {
    let least = show_duration(least_ttl);
    let found = format!(
        "a small write takes {}; the shortest TTL is {least}",
        millis(took)
    );
    let check = if took > SLOW_WRITE {
        let advice = "give etcd disks of its own that flush fast (etcd_disk_wal_fsync_duration_seconds \
             tells); every grant waits for them";
        Check::warn(WRITE, subject(url), found, advice)
    } else {
        Check::ok(WRITE, subject(url), found)
    };
    let least_ms = u64::try_from(least_ttl.as_millis()).unwrap_or(u64::MAX);
    check
        .value("write_us", micros(took))
        .value("least_ttl_ms", least_ms)
}

/// Something that etcd did not do.
fn failed(check: &'static str, url: &str, what: &str, error: &SurveyError) -> Check {
    let found = format!("{what} failed: {error}");
    Check::fail(check, subject(url), found, member::advice(error))
}

fn subject(url: &str) -> String {
    format!("etcd {url}")
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

fn millis(took: Duration) -> String {
    format!("{:.1}ms", took.as_secs_f64() * 1_000.0)
}
