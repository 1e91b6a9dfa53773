//! What is counted and written down for later of what a plan changed.

use crate::audit;
use crate::domain::{Change, Ending, Hold, LeaseEnd, Ledger, Plan, Principal, Revision};
use crate::metrics::Metrics;

/// A lease that began or ended.
#[derive(Debug)]
pub(super) enum Noted {
    Granted(Hold, Option<Principal>),
    Ended(Hold, Option<Principal>, Ending, Revision),
}

impl Noted {
    /// What a plan changes of the ledger, which it was not yet applied to.
    pub(super) fn of<T>(ledger: &Ledger, plan: &Plan<T>) -> Vec<Self> {
        let owner = |hold: &Hold| {
            let session = ledger.session(hold.claim.session);
            session.map(|session| session.principal.clone())
        };
        let noted = plan.changes.iter().filter_map(|change| match change {
            Change::PutHold(hold) => Some(Self::Granted(hold.clone(), owner(hold))),
            Change::DropHold(ending) => {
                let hold = ledger.lease(&ending.resource).0?;
                let owner = owner(hold);
                Some(Self::Ended(
                    hold.clone(),
                    owner,
                    ending.clone(),
                    plan.revision,
                ))
            }
            _ => None,
        });
        noted.collect()
    }

    pub(super) fn note(&self, metrics: Option<&Metrics>) {
        match self {
            Self::Granted(hold, principal) => {
                metrics.into_iter().for_each(Metrics::token_issued);
                audit::granted(hold, principal.as_ref());
            }
            Self::Ended(hold, principal, ending, revision) => {
                if let Some(metrics) = metrics {
                    metrics.ended(ending.end.into());
                }
                if ending.end == LeaseEnd::Revoked {
                    let words = (ending.actor.as_str(), ending.reason.as_str());
                    audit::revoked(hold, &ending.principal, words, *revision);
                }
                audit::ended(hold, Some(ending.end), principal.as_ref(), *revision);
            }
        }
    }
}
