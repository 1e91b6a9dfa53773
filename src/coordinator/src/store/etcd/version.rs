//! Versions of etcd, and what each of them is known to get wrong.

use std::fmt;
use std::str::FromStr;

/// A version of etcd's. What is behind a `-` or `+` in it does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Version {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) patch: u32,
}

impl Version {
    const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            major,
            minor,
            patch,
        } = self;
        write!(formatter, "{major}.{minor}.{patch}")
    }
}

/// The text is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no version of etcd's")]
pub(super) struct NoVersion;

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let end = text.find(['-', '+']).unwrap_or(text.len());
        let mut parts = text[..end].split('.').map(str::parse);
        let mut next = || parts.next().and_then(Result::ok).ok_or(NoVersion);
        let version = Self::new(next()?, next()?, next()?);
        match parts.next() {
            None => Ok(version),
            Some(_) => Err(NoVersion),
        }
    }
}

/// Something that versions of etcd get wrong, and the first of each line that does not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// What it does to those who use this version.
    pub(super) what: &'static str,
    /// The first versions that are mended, one for each line, in order. Lines before the first of them are
    /// not mended, lines after the last are.
    mended: &'static [Version],
    /// Whether a coordinator that is told to be strict refuses etcd for it.
    pub(super) is_grave: bool,
}

const GAPS: [Gap; 8] = [
    Gap {
        what: "a leader that was paused or cut off ends healthy sessions when it is back",
        mended: &[Version::new(3, 4, 31), Version::new(3, 5, 13)],
        is_grave: true,
    },
    Gap {
        what: "how long a session has left is told wrongly while the leader changes",
        mended: &[Version::new(3, 4, 32), Version::new(3, 5, 14)],
        is_grave: true,
    },
    Gap {
        what: "revisions go backwards after a crash while history is compacted; tokens then need a new generation",
        mended: &[Version::new(3, 4, 32), Version::new(3, 5, 14)],
        is_grave: true,
    },
    Gap {
        what: "a session can be reported as renewed that was just ended",
        mended: &[
            Version::new(3, 4, 38),
            Version::new(3, 5, 23),
            Version::new(3, 6, 5),
        ],
        is_grave: false,
    },
    Gap {
        what: "reads can be stale after a pause of the process or a change of the leader",
        mended: &[
            Version::new(3, 4, 42),
            Version::new(3, 5, 28),
            Version::new(3, 6, 9),
        ],
        is_grave: false,
    },
    Gap {
        what: "leases can be revoked, and permissions passed by, without authentication (CVE-2026-33413, CVE-2026-33343)",
        mended: &[
            Version::new(3, 4, 42),
            Version::new(3, 5, 28),
            Version::new(3, 6, 9),
        ],
        is_grave: false,
    },
    Gap {
        what: "nested transactions pass permissions by (CVE-2026-44283)",
        mended: &[
            Version::new(3, 4, 44),
            Version::new(3, 5, 30),
            Version::new(3, 6, 11),
        ],
        is_grave: false,
    },
    Gap {
        what: "nested transactions are not held to the space quota, and peers' requests and TLS handshakes are unbounded",
        mended: &[
            Version::new(3, 5, 33),
            Version::new(3, 6, 14),
            Version::new(3, 7, 1),
        ],
        is_grave: false,
    },
];

impl Gap {
    fn is_in(&self, version: Version) -> bool {
        let line = |version: &Version| (version.major, version.minor);
        match self
            .mended
            .iter()
            .find(|first| line(first) >= line(&version))
        {
            Some(first) => version < *first,
            None => false,
        }
    }

    /// The first versions without it, for people.
    pub(super) fn mended_in(&self) -> String {
        let versions: Vec<_> = self.mended.iter().map(Version::to_string).collect();
        versions.join(", ")
    }
}

/// What a version gets wrong.
pub(super) fn gaps(version: Version) -> impl Iterator<Item = &'static Gap> {
    GAPS.iter().filter(move |gap| gap.is_in(version))
}

/// Whether a coordinator that is told to be strict does without this version: before 3.4.32 and 3.5.14.
pub(super) fn is_below_floor(version: Version) -> bool {
    gaps(version).any(|gap| gap.is_grave)
}

#[cfg(test)]
mod tests {
    use super::{GAPS, Version, gaps, is_below_floor};

    fn count(text: &str) -> usize {
        gaps(text.parse().unwrap()).count()
    }

    #[test]
    fn every_version_gets_wrong_what_is_mended_later() {
        let rows = [
            ("3.3.27", 8),
            ("3.4.0", 8),
            ("3.4.23", 8),
            ("3.4.30", 8),
            ("3.4.31", 7),
            ("3.4.32", 5),
            ("3.4.38", 4),
            ("3.4.42", 2),
            ("3.4.44", 1),
            // The line has ended: its last version is not mended.
            ("3.4.45", 1),
            ("3.5.1", 8),
            ("3.5.13", 7),
            ("3.5.14", 5),
            ("3.5.16", 5),
            ("3.5.23", 4),
            ("3.5.28", 2),
            ("3.5.30", 1),
            ("3.5.33", 0),
            ("3.6.0", 5),
            ("3.6.5", 4),
            ("3.6.9", 2),
            ("3.6.11", 1),
            ("3.6.14", 0),
            ("3.7.0", 1),
            ("3.7.1", 0),
            ("3.8.0", 0),
            ("4.0.0", 0),
        ];
        for (version, wrong) in rows {
            assert_eq!(count(version), wrong, "{version}");
        }
    }

    #[test]
    fn the_floor_is_where_history_and_sessions_hold() {
        for (version, is_refused) in [
            ("3.3.27", true),
            ("3.4.31", true),
            ("3.4.32", false),
            ("3.5.13", true),
            ("3.5.14", false),
            ("3.6.0", false),
            ("3.7.0", false),
        ] {
            assert_eq!(
                is_below_floor(version.parse().unwrap()),
                is_refused,
                "{version}"
            );
        }
    }

    #[test]
    fn the_first_mended_versions_are_in_order() {
        for gap in &GAPS {
            assert!(gap.mended.is_sorted_by(|a, b| a < b), "{}", gap.what);
            assert!(!gap.mended_in().is_empty());
        }
    }

    #[test]
    fn versions_are_read_as_etcd_writes_them() {
        for (text, read) in [
            ("3.5.16", Some("3.5.16")),
            ("3.7.0-alpha.0", Some("3.7.0")),
            ("3.6.1+git", Some("3.6.1")),
            ("3.5", None),
            ("3.5.x", None),
            ("3.5.1.2", None),
            ("", None),
        ] {
            let version: Option<Version> = text.parse().ok();
            assert_eq!(version.map(|v| v.to_string()).as_deref(), read, "{text}");
        }
    }
}
