//! Where each setting was said.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use palisade_coordinator::config::Document;
use serde::Serialize;
use serde_json::Value;

use crate::failure::{Failure, Kind};
use crate::table::plain;

/// Where comments begin, so that most of them are below each other.
const COLUMN: usize = 40;

/// Where one setting was said, in the order in which they count.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    Flag(String),
    Environment(String),
    File(PathBuf, usize),
}

impl Origin {
    /// What comes before what.
    fn rank(&self) -> u8 {
        match self {
            Self::Flag(_) => 2,
            Self::Environment(_) => 1,
            Self::File(..) => 0,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Flag(_) => "flag",
            Self::Environment(_) => "environment",
            Self::File(..) => "file",
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Flag(name) | Self::Environment(name) => plain(name),
            Self::File(path, line) => plain(&format!("{}:{line}", path.display())),
        }
    }
}

/// By key, such as `limits.max_ttl`, where what counts was said. What is not there is a default.
#[derive(Debug, Default)]
pub(super) struct Origins(BTreeMap<String, Origin>);

/// A setting in JSON.
#[derive(Debug, Serialize)]
pub(super) struct SettingJson {
    key: String,
    value: Value,
    origin: &'static str,
    /// Which flag, which variable, or which file and line.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
}

impl Origins {
    pub(super) fn flag(&mut self, key: &str, flag: &str) {
        self.say(key.to_owned(), Origin::Flag(flag.to_owned()));
    }

    pub(super) fn environment(&mut self, key: String, name: &str) {
        self.say(key, Origin::Environment(name.to_owned()));
    }

    pub(super) fn file(&mut self, key: String, path: &Path, line: usize) {
        self.say(key, Origin::File(path.to_owned(), line));
    }

    fn say(&mut self, key: String, origin: Origin) {
        let had = self.0.get(&key).map(Origin::rank);
        if had.is_none_or(|had| origin.rank() >= had) {
            self.0.insert(key, origin);
        }
    }

    /// The text of a file with the origin of each setting behind it.
    pub(super) fn annotate(&self, text: &str) -> Result<String, Failure> {
        let lines =
            Document::lines(text).map_err(|error| Failure::new(Kind::Config, error.to_string()))?;
        let keys: BTreeMap<usize, &str> = lines
            .iter()
            .map(|(key, line)| (*line, key.as_str()))
            .collect();
        let annotated = (1..).zip(text.trim_end().lines()).map(|(number, line)| {
            let Some(key) = keys.get(&number) else {
                return line.to_owned();
            };
            let origin = match self.0.get(*key) {
                None => "default".to_owned(),
                Some(origin) => format!("{} {}", origin.kind(), origin.place()),
            };
            format!("{line:<COLUMN$}  # {origin}")
        });
        Ok(annotated.collect::<Vec<String>>().join("\n"))
    }

    /// Each setting with its origin.
    pub(super) fn list(&self, document: &Document) -> Result<Vec<SettingJson>, Failure> {
        let all = serde_json::to_value(document)
            .map_err(|error| Failure::other(format!("cannot write JSON: {error}")))?;
        let mut list = Vec::new();
        self.collect("", all, &mut list);
        Ok(list)
    }

    fn collect(&self, above: &str, value: Value, list: &mut Vec<SettingJson>) {
        match value {
            Value::Object(section) => {
                for (name, value) in section {
                    let key = match above {
                        "" => name,
                        above => format!("{above}.{name}"),
                    };
                    self.collect(&key, value, list);
                }
            }
            value => {
                let origin = self.0.get(above);
                list.push(SettingJson {
                    key: above.to_owned(),
                    value,
                    origin: origin.map_or("default", Origin::kind),
                    place: origin.map(Origin::place),
                });
            }
        }
    }
}
