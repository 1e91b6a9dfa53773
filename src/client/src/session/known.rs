//! What of a session that goes by calls somebody here knows of. Whatever else it is told to have is given back (I5):
//! after a restore of the store that may be what was released before it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_api::v1::OpenRequest;
use palisade_token::ResourceName;
use tracing::debug;

use super::core::Core;
use crate::release::{self, Hold, Release};

/// By resource and request id.
type Name = (ResourceName, String);

/// Requests that somebody here knows of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    names: Arc<Mutex<Names>>,
}

#[derive(Debug, Default)]
struct Names {
    known: BTreeSet<Name>,
    /// Ended since a renewal was last sent: what it tells of them may be from before that. No more than end between
    /// two tries of a renewal.
    ended: BTreeSet<Name>,
}

/// While it is kept, its request is known of.
#[derive(Debug)]
pub(crate) struct Knows {
    of: Known,
    name: Name,
}

impl Known {
    fn locked(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a request is sent. Its id is never used for another one, so that what is not known of here never
    /// will be.
    pub(crate) fn begin(&self, resource: &ResourceName, request_id: &str) -> Knows {
        let name = (resource.clone(), request_id.to_owned());
        self.locked().known.insert(name.clone());
        Knows {
            of: self.clone(),
            name,
        }
    }

    /// Before a renewal is sent.
    pub(super) fn begin_renewal(&self) {
        self.locked().ended.clear();
    }

    /// Takes what nobody knows of, so that no other renewal finds it so meanwhile.
    fn take_unknown(&self, told: Vec<OpenRequest>) -> Vec<Knows> {
        let named = told.into_iter().filter_map(|one| {
            let resource = ResourceName::new(&one.resource);
            Some((resource.ok()?, one.request_id))
        });
        let mut names = self.locked();
        let mut unknown = Vec::new();
        for name in named {
            if !names.ended.contains(&name) && names.known.insert(name.clone()) {
                let of = self.clone();
                unknown.push(Knows { of, name });
            }
        }
        unknown
    }
}

impl Drop for Knows {
    fn drop(&mut self) {
        let name = (self.name.0.clone(), std::mem::take(&mut self.name.1));
        let mut names = self.of.locked();
        names.known.remove(&name);
        names.ended.insert(name);
    }
}

/// Gives back what a renewal has told of and nobody knows of. What fails is told of again with the next renewal.
pub(super) fn give_back_unknown(core: &Arc<Core>, told: Vec<OpenRequest>) {
    let unknown = core.known.take_unknown(told);
    if unknown.is_empty() {
        return;
    }
    let core = Arc::clone(core);
    core.shared.tasks.clone().spawn("give back", async move {
        // No copy of a request may be granted afterwards (I4).
        let epoch = core.epochs.current();
        for knows in unknown {
            let (resource, request_id) = knows.name.clone();
            debug!(%resource, "giving back what nobody asks for any more");
            let release = Release::new(resource, Hold::Request(request_id)).above(epoch);
            if let Err(error) = release::try_once(&core, &release).await {
                debug!(%error, "not given back yet");
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(names: &[&str]) -> Vec<OpenRequest> {
        let one = |name: &&str| OpenRequest {
            resource: "r".to_owned(),
            request_id: (*name).to_owned(),
            token: 0,
        };
        names.iter().map(one).collect()
    }

    fn unknown(known: &Known, names: &[&str]) -> Vec<String> {
        let taken = known.take_unknown(told(names));
        taken.iter().map(|one| one.name.1.clone()).collect()
    }

    #[test]
    fn what_is_known_of_is_kept_and_all_else_is_taken() {
        let known = Known::default();
        let resource = ResourceName::new("r").unwrap();
        let one = known.begin(&resource, "one");
        assert_eq!(unknown(&known, &["one", "two"]), ["two"]);
        drop(one);
        known.begin_renewal();
        assert_eq!(unknown(&known, &["one", "two"]), ["one", "two"]);
    }

    #[test]
    fn what_ended_while_a_renewal_was_under_way_is_not_taken() {
        let known = Known::default();
        let resource = ResourceName::new("r").unwrap();
        let one = known.begin(&resource, "one");
        known.begin_renewal();
        drop(one);
        assert_eq!(unknown(&known, &["one"]), [""; 0]);
        known.begin_renewal();
        assert_eq!(unknown(&known, &["one"]), ["one"]);
    }

    #[test]
    fn what_is_being_given_back_is_not_taken_twice() {
        let known = Known::default();
        let taken = known.take_unknown(told(&["one"]));
        known.begin_renewal();
        assert_eq!(unknown(&known, &["one"]), [""; 0]);
        drop(taken);
        known.begin_renewal();
        assert_eq!(unknown(&known, &["one"]), ["one"]);
    }

    #[test]
    fn another_resource_is_another_request() {
        let known = Known::default();
        let other = ResourceName::new("other").unwrap();
        let _one = known.begin(&other, "one");
        assert_eq!(unknown(&known, &["one"]), ["one"]);
    }
}
