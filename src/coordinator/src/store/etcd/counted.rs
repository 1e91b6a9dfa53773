//! What is counted and written down for later: calls to etcd, told by what they are answered with, and leases.

use etcd_client::{
    LeaseGrantResponse, LeaseRevokeResponse, LeaseTimeToLiveResponse, TxnResponse, WatchResponse,
    WatchStream,
};

use super::EtcdStore;
use super::fault::{Fault, Kind};
use crate::audit;
use crate::domain::{Hold, LeaseEnd, Principal, Revision};
use crate::metrics::{EtcdOp, EtcdOutcome};

/// An answer of etcd's.
pub(super) trait Reply {
    /// What the call is counted as.
    const OP: EtcdOp;
}

impl Reply for TxnResponse {
    const OP: EtcdOp = EtcdOp::Txn;
}

impl Reply for LeaseGrantResponse {
    const OP: EtcdOp = EtcdOp::LeaseGrant;
}

impl Reply for LeaseRevokeResponse {
    const OP: EtcdOp = EtcdOp::LeaseRevoke;
}

impl Reply for LeaseTimeToLiveResponse {
    const OP: EtcdOp = EtcdOp::LeaseTimeToLive;
}

impl Reply for WatchStream {
    const OP: EtcdOp = EtcdOp::Watch;
}

impl Reply for Option<WatchResponse> {
    const OP: EtcdOp = EtcdOp::Watch;
}

/// How a call went.
pub(super) fn outcome<T>(done: &Result<T, Fault>) -> EtcdOutcome {
    match done.as_ref().map_err(|fault| fault.kind) {
        Ok(_) => EtcdOutcome::Ok,
        Err(Kind::Broken) => EtcdOutcome::Broken,
        Err(
            Kind::LeaseGone | Kind::LeaseExists | Kind::Exhausted | Kind::Refused | Kind::Compacted,
        ) => EtcdOutcome::Refused,
    }
}

impl EtcdStore {
    /// A transaction of this coordinator granted a lease.
    pub(super) fn note_granted(&self, hold: &Hold, principal: Option<&Principal>) {
        self.metrics.token_issued();
        audit::granted(hold, principal);
    }

    /// A transaction of this coordinator ended a lease.
    pub(super) fn note_ended(
        &self,
        hold: &Hold,
        principal: Option<&Principal>,
        (end, revision): (LeaseEnd, Revision),
    ) {
        self.metrics.ended(end.into());
        audit::ended(hold, Some(end), principal, revision);
    }
}
