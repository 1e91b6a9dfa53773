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
