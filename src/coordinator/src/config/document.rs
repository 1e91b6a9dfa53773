//! Settings as text: a TOML file, variables of the environment, and `KEY=VALUE` words, laid over each other.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::time::Time;
use super::{EtcdAccess, Limits, Settings, StoreChoice, Timeouts, TlsFiles};
use crate::access::{Rule, Rules, RulesError};

/// Text that says no settings: change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// A place in a TOML text is malformed, unknown or of the wrong kind.
    #[error("line {line}, column {column}: {message}")]
    Text {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// A variable of the environment, or a word, names no setting or gives it no value that it can have.
    #[error("{name}: {message}")]
    Named {
        /// The variable, or the key.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// Both are named in one place.
    #[error("store.etcd and store.file are both set; choose one")]
    TwoStores,
    /// A certificate without its key serves nothing, and client authorities need TLS.
    #[error("tls.cert_file and tls.key_file must both be set, or nothing of tls")]
    HalfTls,
    /// The rules cannot be used.
    #[error("rules: {0}")]
    Rules(#[from] RulesError),
}

/// Defines a part of a document whose every field may be missing, and its way to and from what it is part
/// of. A field of the whole that is not listed does not compile, so each can be set.
macro_rules! part {
    ($part:ident of $whole:ident { $($field:ident: $wire:ty,)* }) => {
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $part {
            $(#[serde(skip_serializing_if = "Option::is_none")] $field: Option<$wire>,)*
        }

        impl $part {
            fn over(self, lower: Self) -> Self {
                Self { $($field: self.$field.or(lower.$field),)* }
            }

            fn fill(self, whole: &mut $whole) {
                $(if let Some(value) = self.$field {
                    whole.$field = value.into();
                })*
            }

            fn of(whole: &$whole) -> Self {
                let $whole { $($field,)* } = whole.clone();
                Self { $($field: Some($field.into()),)* }
            }
        }
    };
}

part!(LimitsPart of Limits {
    default_ttl: Time,
    min_ttl: Time,
    max_ttl: Time,
    max_wait: Time,
    max_lock_delay: Time,
    max_metadata_bytes: usize,
    max_message_bytes: usize,
    max_calls: usize,
    max_waiters: usize,
    max_waiters_per_resource: u64,
    max_attach_streams: usize,
    max_open_requests: usize,
    max_backlog_bytes: usize,
    max_watchers: usize,
    max_streams_per_connection: u32,
    max_connections: usize,
});

part!(TimeoutsPart of Timeouts {
    default_call: Time,
    max_call: Time,
    reply_margin: Time,
    sweep: Time,
    readiness_interval: Time,
    readiness_limit: Time,
    preface: Time,
    reload: Time,
    http_connection: Time,
    drain_notice: Time,
    drain_limit: Time,
});

/// Words, as a list or as one text with commas between them, as the environment has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Words(Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordsVisitor)
    }
}

struct WordsVisitor;

impl<'de> Visitor<'de> for WordsVisitor {
    type Value = Words;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of texts, or one text with commas between them")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Words, E> {
        let words = text.split(',').map(|word| word.trim().to_owned());
        Ok(Words(words.collect()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Words, A::Error> {
        let mut words = Vec::new();
        while let Some(word) = list.next_element()? {
            words.push(word);
        }
        Ok(Words(words))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StorePart {
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd: Option<Words>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd_prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd_ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd_cert_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd_key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd_user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd_password_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd_batching: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd_strict: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

impl StorePart {
    fn over(self, lower: Self) -> Self {
        // Who names a store takes the place of whoever named the other kind below.
        let names_one = self.etcd.is_some() || self.file.is_some();
        let (etcd, file) = if names_one {
            (self.etcd, self.file)
        } else {
            (lower.etcd, lower.file)
        };
        Self {
            etcd,
            etcd_prefix: self.etcd_prefix.or(lower.etcd_prefix),
            etcd_ca_file: self.etcd_ca_file.or(lower.etcd_ca_file),
            etcd_cert_file: self.etcd_cert_file.or(lower.etcd_cert_file),
            etcd_key_file: self.etcd_key_file.or(lower.etcd_key_file),
            etcd_user: self.etcd_user.or(lower.etcd_user),
            etcd_password_file: self.etcd_password_file.or(lower.etcd_password_file),
            etcd_batching: self.etcd_batching.or(lower.etcd_batching),
            etcd_strict: self.etcd_strict.or(lower.etcd_strict),
            file,
        }
    }

    fn of_etcd(endpoints: &[String], prefix: &str, access: &EtcdAccess) -> Self {
        let access = access.clone();
        Self {
            etcd: Some(Words(endpoints.to_vec())),
            etcd_prefix: Some(prefix.to_owned()),
            etcd_ca_file: access.ca_file,
            etcd_cert_file: access.cert_file,
            etcd_key_file: access.key_file,
            etcd_user: access.user,
            etcd_password_file: access.password_file,
            etcd_batching: Some(!access.unbatched),
            etcd_strict: Some(access.strict),
            file: None,
        }
    }

    fn etcd_access(&self) -> EtcdAccess {
        let Self {
            etcd_ca_file: ca_file,
            etcd_cert_file: cert_file,
            etcd_key_file: key_file,
            etcd_user: user,
            etcd_password_file: password_file,
            ..
        } = self.clone();
        EtcdAccess {
            ca_file,
            cert_file,
            key_file,
            user,
            password_file,
            unbatched: self.etcd_batching == Some(false),
            strict: self.etcd_strict.unwrap_or_default(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsPart {
    #[serde(skip_serializing_if = "Option::is_none")]
    cert_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthPart {
    #[serde(skip_serializing_if = "Option::is_none")]
    token_file: Option<PathBuf>,
}

/// Settings as far as one place says them. What it does not say is left to the place below, and at last to
/// the defaults. Nothing in it is secret: secrets are in files that it names.
///
/// ```
/// use palisade_coordinator::config::{Document, StoreChoice};
///
/// let file = Document::parse("[limits]\nmax_ttl = \"2m\"\nmax_waiters = 7\n")?;
/// let word = Document::word("limits.max_waiters", "8")?;
/// let settings = word.over(file).settings(StoreChoice::Memory)?;
/// assert_eq!(settings.limits.max_waiters, 8);
/// assert_eq!(settings.limits.max_ttl.as_secs(), 120);
/// # Ok::<(), palisade_coordinator::config::DocumentError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Document {
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<SocketAddr>,
    store: StorePart,
    tls: TlsPart,
    auth: AuthPart,
    limits: LimitsPart,
    timeouts: TimeoutsPart,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<Vec<Rule>>,
}

/// What variables of the environment that are settings begin with.
const VARIABLE: &str = "PALISADE_";
/// What stands between the names of a section and its key there.
const NESTED: &str = "__";

impl Document {
    /// Reads the text of a file. A key that is not known is refused.
    ///
    /// # Errors
    /// [`DocumentError::Text`] that says where.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        toml::from_str(text).map_err(|error| {
            let (line, column) = position(text, error.span().map_or(0, |span| span.start));
            DocumentError::Text {
                line,
                column,
                message: error.message().trim().to_owned(),
            }
        })
    }

    /// Reads variables of the environment: `PALISADE_LISTEN`, `PALISADE_HTTP`, and all those with a section as
    /// `PALISADE_LIMITS__MAX_TTL`. Others that begin with `PALISADE_` belong to others; an empty one is not set.
    ///
    /// # Errors
    /// [`DocumentError::Named`] with the variable.
    pub fn from_variables(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, DocumentError> {
        let mut all = Self::default();
        for (name, value) in variables {
            let Some(key) = Self::key_of_variable(&name).filter(|_| !value.is_empty()) else {
                continue;
            };
            let one = Self::word(&key, &value).map_err(|error| error.of(&name))?;
            if (one.store.etcd.is_some() && all.store.file.is_some())
                || (one.store.file.is_some() && all.store.etcd.is_some())
            {
                return Err(DocumentError::TwoStores);
            }
            all = one.over(all);
        }
        Ok(all)
    }

    /// The key of the setting that a variable of the environment is; none for what belongs to others.
    #[must_use]
    pub fn key_of_variable(name: &str) -> Option<String> {
        let rest = name.strip_prefix(VARIABLE)?;
        let is_setting = rest.contains(NESTED) || matches!(rest, "LISTEN" | "HTTP");
        is_setting.then(|| rest.replace(NESTED, ".").to_ascii_lowercase())
    }

    /// One setting by its key, such as `limits.max_ttl`, and its value as text or as TOML.
    ///
    /// # Errors
    /// [`DocumentError::Named`] with the key.
    pub fn word(key: &str, value: &str) -> Result<Self, DocumentError> {
        let nest = |value: toml::Value| {
            key.rsplit('.').fold(value, |value, name| {
                toml::Value::Table(toml::Table::from_iter([(name.to_owned(), value)]))
            })
        };
        let text = nest(toml::Value::String(value.to_owned())).try_into::<Self>();
        text.or_else(|error| {
            // A number or a list is no text. If it does not do either, the first complaint is the better one.
            let literal = toml::from_str::<toml::Table>(&format!("value = {value}"));
            let literal = literal.ok().and_then(|mut table| table.remove("value"));
            literal
                .and_then(|value| nest(value).try_into::<Self>().ok())
                .ok_or_else(|| DocumentError::Named {
                    name: key.to_owned(),
                    message: error.message().trim().to_owned(),
                })
        })
    }

    /// What this says, and where it says nothing what the other does. Rules are taken whole from one of them, and
    /// so is the store.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            listen: self.listen.or(lower.listen),
            http: self.http.or(lower.http),
            store: self.store.over(lower.store),
            tls: TlsPart {
                cert_file: self.tls.cert_file.or(lower.tls.cert_file),
                key_file: self.tls.key_file.or(lower.tls.key_file),
                client_ca_file: self.tls.client_ca_file.or(lower.tls.client_ca_file),
            },
            auth: AuthPart {
                token_file: self.auth.token_file.or(lower.auth.token_file),
            },
            limits: self.limits.over(lower.limits),
            timeouts: self.timeouts.over(lower.timeouts),
            rules: self.rules.or(lower.rules),
        }
    }

    /// The settings, with the defaults where nothing is said. They are still to be validated.
    ///
    /// # Errors
    /// A [`DocumentError`] where parts contradict each other.
    pub fn settings(self, store_unless_said: StoreChoice) -> Result<Settings, DocumentError> {
        let access = self.store.etcd_access();
        let store = match (self.store.etcd, self.store.file) {
            (Some(_), Some(_)) => return Err(DocumentError::TwoStores),
            (Some(endpoints), None) => StoreChoice::Etcd {
                endpoints: endpoints.0,
                prefix: self
                    .store
                    .etcd_prefix
                    .unwrap_or_else(|| StoreChoice::DEFAULT_PREFIX.to_owned()),
                access,
            },
            (None, Some(path)) => StoreChoice::Embedded { path },
            (None, None) => store_unless_said,
        };
        let tls = match (self.tls.cert_file, self.tls.key_file) {
            (Some(cert), Some(key)) => Some(TlsFiles {
                cert,
                key,
                client_ca: self.tls.client_ca_file,
            }),
            (None, None) if self.tls.client_ca_file.is_none() => None,
            _ => return Err(DocumentError::HalfTls),
        };
        let mut settings = Settings {
            listen: self.listen.unwrap_or(Settings::DEFAULT_LISTEN),
            http: self.http.unwrap_or(Settings::DEFAULT_HTTP),
            tls,
            token_file: self.auth.token_file,
            rules: Rules::new(self.rules.unwrap_or_default())?,
            ..Settings::local(store)
        };
        self.limits.fill(&mut settings.limits);
        self.timeouts.fill(&mut settings.timeouts);
        Ok(settings)
    }

    /// A document that says all of the settings.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let store = match &settings.store {
            StoreChoice::Etcd {
                endpoints,
                prefix,
                access,
            } => StorePart::of_etcd(endpoints, prefix, access),
            StoreChoice::Embedded { path } => StorePart {
                file: Some(path.clone()),
                ..StorePart::default()
            },
            StoreChoice::Memory => StorePart::default(),
        };
        let tls = settings.tls.clone();
        Self {
            listen: Some(settings.listen),
            http: Some(settings.http),
            store,
            tls: tls.map_or_else(TlsPart::default, |tls| TlsPart {
                cert_file: Some(tls.cert),
                key_file: Some(tls.key),
                client_ca_file: tls.client_ca,
            }),
            auth: AuthPart {
                token_file: settings.token_file.clone(),
            },
            limits: LimitsPart::of(&settings.limits),
            timeouts: TimeoutsPart::of(&settings.timeouts),
            rules: Some(settings.rules.all().to_vec()).filter(|rules| !rules.is_empty()),
        }
    }

    /// The document as a file has it.
    ///
    /// # Errors
    /// [`DocumentError::Named`] where a path is no text.
    pub fn to_toml(&self) -> Result<String, DocumentError> {
        toml::to_string(self).map_err(|error| DocumentError::Named {
            name: "a setting".to_owned(),
            message: error.to_string(),
        })
    }
}

impl DocumentError {
    /// The same, with the name that the caller knows it by.
    fn of(self, name: &str) -> Self {
        match self {
            Self::Named { message, .. } => Self::Named {
                name: name.to_owned(),
                message,
            },
            other => other,
        }
    }
}

impl From<Time> for Duration {
    fn from(time: Time) -> Self {
        time.0
    }
}

impl From<Duration> for Time {
    fn from(time: Duration) -> Self {
        Self(time)
    }
}

/// The line and the column, counted from 1, of a byte in a text.
pub(crate) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let column = before[line_start..].chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}
