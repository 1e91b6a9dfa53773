//! One member of etcd, and all of them together.

use std::collections::BTreeSet;

use palisade_coordinator::store::etcd::survey::{Member, SurveyError};
use serde_json::{Value, json};

use super::super::report::Check;
use super::subject;

const REACHED: &str = "etcd-endpoint";
const ALARM: &str = "etcd-alarm";
const SPACE: &str = "etcd-space";
const VERSION: &str = "etcd-version";
const MEMBERS: &str = "etcd-members";
/// What etcd takes where nobody has set another, in bytes.
const DEFAULT_QUOTA: u64 = 2 * 1024 * 1024 * 1024;
/// Below this there is little time to act before etcd takes no more data, in parts of a hundred.
const CROWDED: u64 = 80;

/// An endpoint that cannot be looked at.
pub(super) fn away(url: &str, error: &SurveyError) -> Check {
    Check::fail(REACHED, subject(url), error.to_string(), advice(error))
}

pub(super) fn advice(error: &SurveyError) -> &'static str {
    match error {
        SurveyError::Unreachable(_) => {
            "see that it runs, that this is its client URL, and that http or https is right"
        }
        SurveyError::Silent(_) => {
            "it is frozen, overloaded, or cannot agree with its peers; look at its log"
        }
        SurveyError::NoQuorum(_) => {
            "most of its members are away or cannot reach each other: bring them back"
        }
        SurveyError::Refused(_) => {
            "give the user or certificate of the coordinators (--etcd-user, --etcd-cert-file), and see its role"
        }
        SurveyError::NoSpace(_) => NO_SPACE,
        _ => "see the files that were named, and etcd's log; PALISADE_LOG=debug says more",
    }
}

const NO_SPACE: &str = "etcdctl compact, then defrag each member, then alarm disarm; find out what fills it, or \
     raise --quota-backend-bytes. Until then nothing is granted; releases go on";

/// An etcd that tells how it stands to its administrator only.
pub(super) fn secretive(url: &str) -> Check {
    let found = "answers, but tells its version, space and alarms to its administrator only";
    let advice =
        "run this as a user with the role root, or look by etcdctl endpoint status and alarm list";
    Check::warn(REACHED, subject(url), found, advice)
}

/// What one member says of itself.
pub(super) fn checks(url: &str, member: &Member) -> Vec<Check> {
    let role = match (member.leads, member.is_learner) {
        (true, _) => "leader",
        (_, true) => "learner",
        _ => "follower",
    };
    let cluster = format!("{:x}", member.cluster);
    let found = format!(
        "answers; {role}, version {}, cluster {cluster}",
        member.version
    );
    let reached = if member.is_learner {
        let advice =
            "a learner takes neither writes nor streams: name a member that votes, or promote it";
        Check::fail(REACHED, subject(url), found, advice)
    } else {
        Check::ok(REACHED, subject(url), found)
    };
    let reached = reached
        .value("version", &*member.version)
        .value("cluster_id", cluster)
        .value("role", role);
    let mut checks = vec![reached, space(url, member)];
    if member.is_full {
        let found = "the NOSPACE alarm is on: it takes no more data";
        checks.push(Check::fail(ALARM, subject(url), found, NO_SPACE).value("alarm", "NOSPACE"));
    }
    if member.is_corrupt {
        let found = "the CORRUPT alarm is on: its members differ in what they hold";
        let advice = "restore the cluster from a snapshot; coordinators grant nothing until then";
        checks.push(Check::fail(ALARM, subject(url), found, advice).value("alarm", "CORRUPT"));
    }
    checks
}

fn space(url: &str, member: &Member) -> Check {
    let (file, used) = (member.file_bytes, member.used_bytes);
    let quota = member.quota_bytes.unwrap_or(DEFAULT_QUOTA);
    let of = match member.quota_bytes {
        Some(quota) => format!("of {}", bytes(quota)),
        None => format!(
            "(this version does not tell its quota; unless set it is {})",
            bytes(DEFAULT_QUOTA)
        ),
    };
    let found = format!("its file has {}, {} in use, {of}", bytes(file), bytes(used));
    let is_crowded = |size: u64| size.saturating_mul(100) > quota.saturating_mul(CROWDED);
    let check = if is_crowded(used) {
        let advice =
            "find out what fills it, or raise --quota-backend-bytes, before it takes no more data";
        Check::warn(SPACE, subject(url), found, advice)
    } else if is_crowded(file) {
        let advice = "etcdctl defrag, one member after another, the leader last: most of the file is not in use";
        Check::warn(SPACE, subject(url), found, advice)
    } else {
        Check::ok(SPACE, subject(url), found)
    };
    let check = check.value("file_bytes", file).value("used_bytes", used);
    match member.quota_bytes {
        Some(quota) => check.value("quota_bytes", quota),
        None => check,
    }
}

/// What a version gets wrong, by the table that coordinators warn by.
pub(super) fn version(urls: BTreeSet<&str>, member: &Member) -> Check {
    let subject = format!("etcd {}", member.version);
    let urls: Vec<Value> = urls.into_iter().map(Value::from).collect();
    let check = match member.faults.as_deref() {
        None => {
            let advice = "run a released version, so that it can be known what it gets wrong";
            Check::warn(VERSION, subject, "this version is not known", advice)
        }
        Some([]) => Check::ok(VERSION, subject, "no fault is known that matters here"),
        Some(faults) => {
            let is_grave = faults.iter().any(|fault| fault.is_grave);
            let advice = if is_grave {
                "update it; palisade serve --strict-etcd refuses this version"
            } else {
                "update it when you can"
            };
            let number = faults.len();
            let plural = if number == 1 { "fault" } else { "faults" };
            let found = format!("{number} known {plural} that matter here");
            let check = Check::warn(VERSION, subject, found, advice);
            let check = faults.iter().fold(check, |check, fault| {
                check.detail(format!("{} (mended in {})", fault.what, fault.mended_in))
            });
            let told = faults.iter().map(|fault| {
                json!({"what": fault.what, "mended_in": fault.mended_in, "grave": fault.is_grave})
            });
            check.value("faults", told.collect::<Vec<Value>>())
        }
    };
    check
        .value("version", &*member.version)
        .value("endpoints", urls)
}

/// What only all of them together show.
pub(super) fn whole(
    members: &[(String, Member)],
    voters: Option<usize>,
    named: usize,
) -> Vec<Check> {
    let clusters: BTreeSet<u64> = members.iter().map(|(_, member)| member.cluster).collect();
    if clusters.len() > 1 {
        let ids: Vec<String> = clusters.iter().map(|id| format!("{id:x}")).collect();
        let found = format!(
            "the endpoints are of different clusters: {}",
            ids.join(", ")
        );
        let advice =
            "name endpoints of one cluster only; coordinators grant nothing while they differ";
        let check = Check::fail(MEMBERS, "etcd", found, advice);
        return vec![check.value("cluster_ids", ids)];
    }
    let Some(voters) = voters else {
        return Vec::new();
    };
    let found = match voters {
        1 => "one member votes".to_owned(),
        voters => format!("{voters} members vote"),
    };
    let check = if voters == 1 {
        let advice = "run three or five where an outage of one machine must not stop granting";
        Check::warn(MEMBERS, "etcd", found, advice)
    } else if voters.is_multiple_of(2) {
        let advice = "run one more or one less: it survives no more outages than with one less";
        Check::warn(MEMBERS, "etcd", found, advice)
    } else if named < voters {
        let found = format!("{found}, {named} named");
        let advice = "name all of them to the coordinators, so that they go on when one is away";
        Check::warn(MEMBERS, "etcd", found, advice)
    } else {
        Check::ok(MEMBERS, "etcd", found)
    };
    vec![check.value("voters", voters)]
}

fn bytes(number: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = UNITS.into_iter().find(|(_, unit)| number >= *unit);
    match unit {
        None => format!("{number} B"),
        Some((name, unit)) => {
            let tenths = number.saturating_mul(10) / unit;
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
    }
}
