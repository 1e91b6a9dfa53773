use object_store::path::Path;
use object_store::{ObjectStoreExt as _, UpdateVersion};
use palisade_token::{FencingToken, HolderId, ResourceName};
use serde::{Deserialize, Serialize};

use super::{Guard, backend};
use crate::GuardError;
use crate::decide::Mark;

/// How many changes of a manifest are remembered: a client whose answer was lost finds out what became of
/// its change unless more than these came after it.
pub const RECENT: usize = 64;

/// The version of the manifest's form that this library writes.
const FORMAT: i64 = 1;

/// The most changes that a manifest can count, as JSON's numbers are exact: at a thousand a second for 285,000 years.
const MOST_CHANGES: u64 = 1 << 53;

/// What tells one change from every other: 128 random bits, in hexadecimal.
pub(super) type Nonce = String;

/// What is known of a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) mark: Option<Mark>,
    pub(super) data: Option<Path>,
    /// Counts the changes.
    pub(super) number: u64,
    /// The nonces of the last changes, ending with that of `number`.
    recent: Vec<Nonce>,
}

/// Its form in JSON.
#[derive(Serialize, Deserialize)]
struct Form {
    format: i64,
    token: Option<u64>,
    holder: Option<String>,
    data: Option<String>,
    number: u64,
    recent: Vec<Nonce>,
}

/// Whether a change is in a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happened {
    Yes,
    No,
    /// Too long ago.
    Forgotten,
}

/// A manifest as it was read.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) manifest: Manifest,
    pub(super) version: UpdateVersion,
}

impl Manifest {
    /// The next manifest after this one.
    pub(super) fn then(&self, mark: Mark, data: Option<Path>, nonce: Nonce) -> Self {
        let mut recent = self.recent.clone();
        recent.push(nonce);
        let oldest = recent.len().saturating_sub(RECENT);
        recent.drain(..oldest);
        Self {
            mark: Some(mark),
            data,
            number: self.number + 1,
            recent,
        }
    }

    pub(super) fn holds(&self, change: &Self) -> Happened {
        let Some(later) = self.number.checked_sub(change.number) else {
            return Happened::No;
        };
        let place = usize::try_from(later)
            .ok()
            .and_then(|later| self.recent.len().checked_sub(later + 1));
        match place {
            None => Happened::Forgotten,
            Some(place) if self.recent.get(place) == change.recent.last() => Happened::Yes,
            Some(_) => Happened::No,
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let form = Form {
            format: FORMAT,
            token: self.mark.map(|mark| mark.token.get()),
            holder: self.mark.map(|mark| mark.holder.to_string()),
            data: self.data.as_ref().map(ToString::to_string),
            number: self.number,
            recent: self.recent.clone(),
        };
        serde_json::to_vec(&form).expect("a struct of strings and numbers")
    }

    fn from_json(bytes: &[u8]) -> Result<Self, GuardError> {
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(broken)?;
        let found = value.get("format").and_then(serde_json::Value::as_i64);
        if let Some(found) = found.filter(|found| *found > FORMAT) {
            let known = FORMAT;
            return Err(GuardError::Newer { found, known });
        }
        let form: Form = serde_json::from_value(value).map_err(broken)?;
        let mark = match (form.token, form.holder) {
            (Some(token), Some(holder)) => Some(Mark {
                token: FencingToken::new(token).map_err(broken)?,
                holder: holder.parse().map_err(broken)?,
            }),
            (None, None) => None,
            _ => return Err(broken("a manifest has half a fence")),
        };
        if form.number >= MOST_CHANGES {
            return Err(broken("a manifest counts more changes than there can be"));
        }
        let data = form.data.map(Path::parse).transpose().map_err(broken)?;
        Ok(Self {
            mark,
            data,
            number: form.number,
            recent: form.recent,
        })
    }
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> GuardError {
    GuardError::Backend(error.into())
}

/// # Errors
/// [`GuardError::Backend`] where the system gives no random bytes.
pub(super) fn nonce() -> Result<Nonce, GuardError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| GuardError::Backend(Box::new(error)))?;
    Ok(HolderId::from_bytes(bytes).to_string())
}

impl Guard {
    pub(super) async fn read(&self, resource: &ResourceName) -> Result<Option<Read>, GuardError> {
        self.read_at(&self.manifest(resource)).await
    }

    pub(super) async fn read_at(&self, path: &Path) -> Result<Option<Read>, GuardError> {
        let found = match self.store.get(path).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(backend(error)),
        };
        let version = UpdateVersion {
            e_tag: found.meta.e_tag.clone(),
            version: found.meta.version.clone(),
        };
        let bytes = found.bytes().await.map_err(backend)?;
        let manifest = Manifest::from_json(&bytes)?;
        Ok(Some(Read { manifest, version }))
    }
}

/// A manifest that somebody else has written.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_manifest(input: &[u8]) {
    let Ok(manifest) = Manifest::from_json(input) else {
        return;
    };
    let again = Manifest::from_json(&manifest.to_json()).expect("what is written is read");
    assert_eq!(again, manifest);
    let mark = Mark {
        token: FencingToken::new(7).expect("a token"),
        holder: HolderId::from_bytes([7; 16]),
    };
    let next = manifest.then(mark, None, "nonce".to_owned());
    assert!(next.number > manifest.number, "the count of changes grows");
    assert!(next.recent.len() <= RECENT);
    assert_eq!(next.holds(&next), Happened::Yes);
    assert_ne!(manifest.holds(&next), Happened::Yes);
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;
    use palisade_token::{FencingToken, HolderId};

    use super::{Happened, Manifest, RECENT, nonce};
    use crate::GuardError;
    use crate::decide::Mark;

    fn mark() -> Mark {
        Mark {
            token: FencingToken::new(7).unwrap(),
            holder: HolderId::from_bytes([7; 16]),
        }
    }

    #[test]
    fn a_change_is_found_until_too_many_came_after_it() {
        let before = Manifest::default();
        let change = before.then(mark(), Some(Path::from("data")), nonce().unwrap());
        let other = before.then(mark(), None, nonce().unwrap());
        assert_eq!(before.holds(&change), Happened::No);
        assert_eq!(other.holds(&change), Happened::No);
        let mut now = change.clone();
        for _ in 0..RECENT {
            assert_eq!(now.holds(&change), Happened::Yes);
            assert_eq!(now.holds(&other), Happened::No);
            now = now.then(mark(), None, nonce().unwrap());
        }
        assert_eq!(now.holds(&change), Happened::Forgotten);
        assert_eq!(now.recent.len(), RECENT);
    }

    #[test]
    fn json_returns_the_manifest_and_a_newer_form_is_refused() {
        let manifest = Manifest::default().then(mark(), None, nonce().unwrap());
        let json = manifest.to_json();
        assert_eq!(Manifest::from_json(&json).unwrap(), manifest);
        let newer = String::from_utf8(json)
            .unwrap()
            .replace("\"format\":1", "\"format\":2");
        let error = Manifest::from_json(newer.as_bytes()).unwrap_err();
        assert!(matches!(error, GuardError::Newer { found: 2, known: 1 }));
        for bad in ["", "{}", "[]", "{\"format\":1,\"token\":0}", "null"] {
            assert!(Manifest::from_json(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
