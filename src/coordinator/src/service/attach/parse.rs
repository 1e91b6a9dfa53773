//! From a stream's messages to what the domain knows.

use std::collections::BTreeMap;
use std::time::Duration;

use palisade_api::v1::attach_open::Owner;
use palisade_api::v1::{
    AttachAcquire, AttachCancel, AttachOpen, AttachRelease, OpenRequest, attach_release,
};
use palisade_token::{FencingToken, ResourceName};

use super::job::Give;
use crate::config::Limits;
use crate::domain::{HoldName, RequestId};
use crate::service::error::{About, BadField};
use crate::service::parse::{
    self, Credentials, Opening, bad, fence, lock_delay, metadata, required, token, wait,
};

/// A request that the client still knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) resource: ResourceName,
    pub(super) request: RequestId,
    /// Where the client was told that it holds.
    pub(super) token: Option<FencingToken>,
}

/// All requests that the client still knows of, by resource: few of them have several of one.
pub(super) type AllNamed = BTreeMap<ResourceName, Vec<Named>>;

/// What is opened or resumed.
#[derive(Debug)]
pub(super) enum Whose {
    Session(Credentials),
    Opening(Opening),
}

pub(super) fn open(
    given: AttachOpen,
    limits: &Limits,
    least_ttl: Duration,
) -> Result<(Whose, Vec<Named>), BadField> {
    let whose = match required("owner", given.owner)? {
        Owner::Session(session) => Whose::Session(parse::session(&session)?),
        Owner::Opening(opening) => Whose::Opening(parse::opening(&opening, limits, least_ttl)?),
    };
    Ok((whose, open_requests(given.open_requests, limits)?))
}

pub(super) fn open_requests(
    given: Vec<OpenRequest>,
    limits: &Limits,
) -> Result<Vec<Named>, BadField> {
    let most = limits.max_open_requests;
    if given.len() > most {
        return Err(bad("open_requests", format!("at most {most}"), given.len()));
    }
    given.iter().map(named).collect()
}

fn named(given: &OpenRequest) -> Result<Named, BadField> {
    Ok(Named {
        resource: parse::resource("open_requests.resource", &given.resource)?,
        request: parse::request_id("open_requests.request_id", &given.request_id)?,
        token: fence("open_requests.token", given.token)?,
    })
}

pub(super) fn by_resource(named: Vec<Named>) -> AllNamed {
    let mut all = AllNamed::new();
    for one in named {
        all.entry(one.resource.clone()).or_default().push(one);
    }
    all
}

/// An acquire whose bounds are checked.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) resource: ResourceName,
    pub(super) request: RequestId,
    pub(super) wait: Duration,
    pub(super) lock_delay: Duration,
    pub(super) metadata: Vec<u8>,
    pub(super) is_retry: bool,
}

pub(super) fn acquire(
    given: AttachAcquire,
    limits: &Limits,
    about: &mut About,
) -> Result<Wish, BadField> {
    let resource = parse::resource("resource", &given.resource)?;
    about.resource = Some(resource.clone());
    let request = parse::request_id("request_id", &given.request_id)?;
    about.request = Some(request.clone());
    Ok(Wish {
        resource,
        request,
        wait: wait("wait_ms", given.wait_ms, limits)?,
        lock_delay: lock_delay("lock_delay_ms", given.lock_delay_ms, limits)?,
        metadata: metadata("metadata", given.metadata, limits)?,
        is_retry: given.attempt > 1,
    })
}

pub(super) fn cancel(seq: u64, given: &AttachCancel, about: &mut About) -> Result<Give, BadField> {
    let resource = parse::resource("resource", &given.resource)?;
    about.resource = Some(resource.clone());
    let request = parse::request_id("request_id", &given.request_id)?;
    about.request = Some(request.clone());
    Ok(Give {
        seq,
        resource,
        hold: HoldName::Request(request),
        fence: None,
        is_asked: true,
    })
}

pub(super) fn release(
    seq: u64,
    given: &AttachRelease,
    about: &mut About,
) -> Result<Give, BadField> {
    let resource = parse::resource("resource", &given.resource)?;
    about.resource = Some(resource.clone());
    let hold = match required("hold", given.hold.as_ref())? {
        attach_release::Hold::Token(number) => HoldName::Token(token("token", *number)?),
        attach_release::Hold::RequestId(text) => {
            let request = parse::request_id("request_id", text)?;
            about.request = Some(request.clone());
            HoldName::Request(request)
        }
    };
    Ok(Give {
        seq,
        resource,
        hold,
        fence: fence("refused_by_fence", given.refused_by_fence)?,
        is_asked: true,
    })
}

/// One message of a stream, whoever made it.
#[cfg(any(test, fuzzing))]
pub(in crate::service) fn fuzz_message(
    seq: u64,
    message: palisade_api::v1::attach_request::Message,
    limits: &Limits,
) {
    use palisade_api::v1::attach_request::Message;

    use crate::service::fuzz::{is_told, opening, session};

    let mut about = About::default();
    let told = |result: Result<(), BadField>, secrets: &[&[u8]]| {
        if let Err(bad) = result {
            is_told(bad, secrets);
        }
    };
    match message {
        Message::Open(given) => {
            let secret = match &given.owner {
                Some(Owner::Session(owner)) => {
                    session(owner);
                    owner.secret.clone()
                }
                Some(Owner::Opening(owner)) => {
                    opening(owner, limits);
                    owner.secret.clone()
                }
                None => Vec::new(),
            };
            let opened = open(given, limits, limits.min_ttl).map(|(_, named)| {
                assert!(named.len() <= limits.max_open_requests);
                let count = named.len();
                assert_eq!(
                    by_resource(named).values().map(Vec::len).sum::<usize>(),
                    count
                );
            });
            told(opened, &[&secret]);
        }
        Message::Renew(given) => {
            told(open_requests(given.open_requests, limits).map(drop), &[]);
        }
        Message::Acquire(given) => {
            let secret = given.metadata.clone();
            let wish = acquire(given, limits, &mut about).map(|wish| {
                assert!(wish.wait <= limits.max_wait && wish.lock_delay <= limits.max_lock_delay);
                assert!(wish.metadata.len() <= limits.max_metadata_bytes);
                assert_eq!(about.resource.as_ref(), Some(&wish.resource));
            });
            told(wish, &[&secret]);
        }
        Message::Cancel(given) => told(cancel(seq, &given, &mut about).map(drop), &[]),
        Message::Release(given) => told(release(seq, &given, &mut about).map(drop), &[]),
        _ => {}
    }
}
