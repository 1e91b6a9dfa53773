//! Those who acquire and release in one round.

use std::time::Duration;

use etcd_client::{LeaseClient, LockClient};

use super::failure::unreachable;
use super::lock::{self, LockHolder};
use super::rig::Rig;
use super::stream::{StreamHolder, StreamSession};
use super::unary::{UnaryHolder, UnarySession};
use crate::args::Variant;
use crate::failure::Failure;

/// As clients have it by default.
const TTL: Duration = Duration::from_secs(15);

/// Who takes one resource again and again.
pub(crate) enum Holder {
    Lock(Box<LockHolder>),
    Stream(StreamHolder),
    Unary(Box<UnaryHolder>),
}

impl Holder {
    pub(crate) async fn acquire(&mut self) -> Result<(), Failure> {
        match self {
            Self::Lock(holder) => holder.acquire().await,
            Self::Stream(holder) => holder.acquire().await,
            Self::Unary(holder) => holder.acquire().await,
        }
    }

    pub(crate) async fn release(&mut self) -> Result<(), Failure> {
        match self {
            Self::Lock(holder) => holder.release().await,
            Self::Stream(holder) => holder.release().await,
            Self::Unary(holder) => holder.release().await,
        }
    }
}

/// Who is at what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    /// Each a resource of its own, all in one session.
    Apart,
    /// All at one resource, each in a session of its own.
    Together,
}

/// Connections to etcd, and leases granted over them.
pub(crate) struct Locks {
    locks: LockClient,
    client: LeaseClient,
    leases: Vec<i64>,
}

/// The sessions, or the etcd leases, of one round.
pub(crate) enum Party {
    Lock(Box<Locks>),
    Stream(Vec<StreamSession>),
    Unary(Vec<UnarySession>),
}

impl Party {
    /// Opens what `size` holders need, over one connection.
    pub(crate) async fn gather(
        rig: &Rig,
        variant: Variant,
        setting: Setting,
        size: usize,
    ) -> Result<(Self, Vec<Holder>), Failure> {
        let sessions = match setting {
            Setting::Apart => 1,
            Setting::Together => size,
        };
        let slots = size.div_ceil(sessions.max(1));
        let party = match variant {
            Variant::V3lock => {
                let etcd = rig.etcd().await?;
                let (locks, mut client) = (etcd.lock_client(), etcd.lease_client());
                let mut leases = Vec::with_capacity(sessions);
                for _ in 0..sessions {
                    leases.push(lock::grant(&mut client).await?);
                }
                Self::Lock(Box::new(Locks {
                    locks,
                    client,
                    leases,
                }))
            }
            Variant::Stream => {
                let caller = rig.caller().await?;
                let mut opened = Vec::with_capacity(sessions);
                for _ in 0..sessions {
                    opened.push(StreamSession::open(caller.clone(), TTL, slots).await?);
                }
                Self::Stream(opened)
            }
            Variant::Unary => {
                let caller = rig.caller().await?;
                let mut opened = Vec::with_capacity(sessions);
                for _ in 0..sessions {
                    let mut session = UnarySession::open(caller.clone(), TTL).await?;
                    session.keep_alive();
                    opened.push(session);
                }
                Self::Unary(opened)
            }
        };
        let holders = (0..size).map(|index| party.holder(rig, setting, index));
        let holders: Option<Vec<Holder>> = holders.collect();
        let holders = holders.ok_or_else(|| unreachable("no session was opened"))?;
        Ok((party, holders))
    }

    fn holder(&self, rig: &Rig, setting: Setting, index: usize) -> Option<Holder> {
        let (resource, session, slot) = match setting {
            Setting::Apart => (format!("bench/{index}"), 0, index),
            Setting::Together => ("bench/one".to_owned(), index, 0),
        };
        Some(match self {
            Self::Lock(locks) => {
                let lease = *locks.leases.get(session)?;
                let name = format!("{}{resource}", rig.lock_prefix());
                Holder::Lock(Box::new(LockHolder::new(locks.locks.clone(), name, lease)))
            }
            Self::Stream(sessions) => Holder::Stream(sessions.get(session)?.holder(resource, slot)),
            Self::Unary(sessions) => {
                Holder::Unary(Box::new(sessions.get(session)?.holder(resource, slot)))
            }
        })
    }

    /// Ends the sessions, so that the next round finds etcd as this one did.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Lock(mut locks) => {
                for lease in locks.leases {
                    lock::revoke(&mut locks.client, lease).await?;
                }
            }
            Self::Stream(sessions) => {
                for session in sessions {
                    session.close().await?;
                }
            }
            Self::Unary(sessions) => {
                for session in sessions {
                    session.close().await?;
                }
            }
        }
        Ok(())
    }
}
