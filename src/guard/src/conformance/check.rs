//! What the cases are made of.

use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;

use futures::future::{self, Either};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};

use super::{Capability, Subject, resources};
use crate::decide::Mark;
use crate::{Class, GuardError};

/// A refusal, as a case expects it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refusal {
    Stale { presented: u64, fence: u64 },
    Unsealed { presented: u64, fence: Option<u64> },
    Backwards { sealed: u64, fence: Option<u64> },
    Collision { token: u64 },
    Unguarded,
}

impl Refusal {
    fn is(self, error: &GuardError, of: &ResourceName) -> bool {
        let at = |fence: &Option<FencingToken>| fence.map(FencingToken::get);
        match (self, error) {
            (
                Self::Stale {
                    presented: p,
                    fence: f,
                },
                GuardError::Stale {
                    resource,
                    presented,
                    fence,
                },
            ) => resource == of && presented.get() == p && fence.get() == f,
            (
                Self::Unsealed {
                    presented: p,
                    fence: f,
                },
                GuardError::Unsealed {
                    resource,
                    presented,
                    fence,
                },
            ) => resource == of && presented.get() == p && at(fence) == f,
            (
                Self::Backwards {
                    sealed: s,
                    fence: f,
                },
                GuardError::StoreWentBackwards {
                    resource,
                    sealed,
                    fence,
                },
            ) => resource == of && sealed.get() == s && at(fence) == f,
            (Self::Collision { token: t }, GuardError::Collision { resource, token }) => {
                resource == of && token.get() == t
            }
            (Self::Unguarded, GuardError::Unguarded { resource, .. }) => *resource == of.as_str(),
            _ => false,
        }
    }
}

/// # Panics
/// Unless it was refused so.
pub(super) fn refused<T: Debug>(
    step: &str,
    seen: Result<T, GuardError>,
    of: &ResourceName,
    expected: Refusal,
) {
    let is_so = seen.as_ref().is_err_and(|error| expected.is(error, of));
    assert!(is_so, "{step}: expected {expected:?} of {of}, saw {seen:?}");
}

pub(super) fn lacks<S: Subject>(capability: Capability) -> bool {
    S::LACKS.contains(&capability)
}

/// The first resource of the suite.
pub(super) fn first() -> ResourceName {
    let [first, ..] = resources();
    first
}

/// A grant whose holder follows from its token.
pub(super) fn grant(resource: &ResourceName, token: u64) -> Grant {
    held_by(resource, token, 0)
}

/// The grant of that number which a coordinator has given twice.
pub(super) fn held_by(resource: &ResourceName, token: u64, twin: u8) -> Grant {
    let mut holder = [twin; 16];
    holder[..8].copy_from_slice(&token.to_be_bytes());
    Grant {
        resource: resource.clone(),
        token: FencingToken::new(token).expect("a small number"),
        holder: HolderId::from_bytes(holder),
    }
}

/// # Panics
/// When the subject's patience is over first.
pub(super) async fn within<S: Subject, T>(
    subject: &S,
    step: &str,
    work: impl Future<Output = T>,
) -> T {
    // On the heap: a store's futures are large, and nested here.
    match future::select(Box::pin(work), pin!(subject.patience())).await {
        Either::Left((done, _)) => done,
        Either::Right(((), _)) => panic!("{step}: expected it to end, saw it wait in vain"),
    }
}

/// Seals, again for as long as the store says so: some waits of a seal are short.
pub(super) async fn try_seal<S: Subject>(
    subject: &S,
    grant: &Grant,
) -> Result<S::Sealed, GuardError> {
    let again = async {
        loop {
            match subject.seal(grant).await {
                Err(error) if error.class() == Class::Retry => {}
                done => return done,
            }
        }
    };
    within(subject, &format!("seal {}", grant.token), again).await
}

/// # Panics
/// Unless it is sealed, and the fence says so.
pub(super) async fn seal<S: Subject>(subject: &S, grant: &Grant) -> S::Sealed {
    let sealed = try_seal(subject, grant).await;
    let sealed = sealed.unwrap_or_else(|error| {
        panic!("seal {}: expected Ok, saw {error:?}", grant.token);
    });
    fence_is(subject, &grant.resource, Some(grant)).await;
    sealed
}

pub(super) async fn fence_is<S: Subject>(
    subject: &S,
    resource: &ResourceName,
    expected: Option<&Grant>,
) {
    let seen = subject.fence(resource).await;
    let expected = expected.map(Mark::from);
    assert!(
        seen == expected,
        "fence of {resource}: expected {expected:?}, saw {seen:?}"
    );
}

pub(super) async fn value_is<S: Subject>(
    subject: &S,
    step: &str,
    resource: &ResourceName,
    expected: Option<u64>,
) {
    let seen = subject.get(resource).await;
    assert!(
        seen == expected,
        "{step}: expected the value {expected:?} of {resource}, saw {seen:?}"
    );
}

/// A whole write of one register.
pub(super) async fn try_write<S: Subject>(
    subject: &S,
    sealed: &S::Sealed,
    resource: &ResourceName,
    value: u64,
) -> Result<(), GuardError> {
    let write = async {
        let mut write = subject.begin(&[sealed]).await?;
        subject.put(&mut write, resource, value).await?;
        subject.commit(write).await
    };
    within(subject, "write", write).await
}

/// # Panics
/// Unless it is admitted and can be read.
pub(super) async fn write<S: Subject>(
    subject: &S,
    sealed: &S::Sealed,
    resource: &ResourceName,
    value: u64,
) {
    let seen = try_write(subject, sealed, resource, value).await;
    assert!(
        seen.is_ok(),
        "write of {value} to {resource}: expected Ok, saw {seen:?}"
    );
    value_is(subject, "after a commit", resource, Some(value)).await;
}

/// Opens a write and sets one register in it, without a commit.
pub(super) async fn open<S: Subject>(
    subject: &S,
    sealed: &[&S::Sealed],
    resource: &ResourceName,
    value: u64,
) -> S::Write {
    let opened = async {
        let mut write = subject.begin(sealed).await?;
        subject.put(&mut write, resource, value).await?;
        Ok::<_, GuardError>(write)
    };
    let opened = within(subject, "open a write", opened).await;
    opened.unwrap_or_else(|error| panic!("open a write: expected Ok, saw {error:?}"))
}
