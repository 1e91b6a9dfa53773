//! The one task of a session: renews it, and notices its deadline.

use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::{RenewSessionRequest, RenewSessionResponse};
use tracing::{debug, warn};

use super::core::Core;
use super::known;
use crate::calls::Answer;
use crate::error::ClientError;
use crate::error::status::{Failure, Verdict};
use crate::standing::LostReason;

/// A renewal is due a third of the TTL after the last one was sent: two may fail before it is late.
const RENEWALS_PER_TTL: u32 = 3;
/// A renewal comes up to this much earlier, in thousandths of its interval, so that sessions spread.
const INTERVAL_PERMILLE: u32 = 850;
/// One try takes at most this share of the TTL, so that other endpoints are tried before the deadline.
const TRIES_PER_TTL: u32 = 6;
/// The first pause between tries is this share of the TTL; each further one is twice as long...
const FIRST_PAUSES_PER_TTL: u32 = 50;
/// ...up to this share, so that a coordinator that is back is found before the deadline...
const LONGEST_PAUSES_PER_TTL: u32 = 10;
/// ...and up to this, so that it is found soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Runs until the session has ended.
pub(super) async fn keep(core: Arc<Core>) {
    tokio::select! {
        biased;
        () = core.watch_deadline() => {}
        () = renew_for_ever(&core) => {}
    }
}

async fn renew_for_ever(core: &Arc<Core>) {
    let clock = &core.shared.clock;
    loop {
        let due = core.renewed_at().after(interval(core));
        clock.sleep(clock.now().until(due)).await;
        let mut pause = Duration::ZERO;
        while !renew(core).await {
            pause = next_pause(core, pause);
            clock.sleep(core.shared.random.jittered(pause, 500)).await;
        }
    }
}

/// How long after one renewal the next is due.
pub(crate) fn interval(core: &Core) -> Duration {
    let random = &core.shared.random;
    random.jittered(core.ttl / RENEWALS_PER_TTL, INTERVAL_PERMILLE)
}

/// How long one try may take.
pub(crate) fn try_limit(core: &Core) -> Duration {
    core.shared.call_timeout.min(core.ttl / TRIES_PER_TTL)
}

/// The pause after the first try that failed.
pub(crate) fn first_pause(core: &Core) -> Duration {
    core.ttl / FIRST_PAUSES_PER_TTL
}

/// The pause after a further try that failed; `before` is zero for the first.
pub(crate) fn next_pause(core: &Core, before: Duration) -> Duration {
    let longest = (core.ttl / LONGEST_PAUSES_PER_TTL).min(LONGEST_PAUSE);
    (before * 2).max(first_pause(core)).min(longest)
}

/// Renews once. Each try is a new renewal and no retry: it grants nothing, so a delayed copy of an earlier
/// one does no harm, and a larger epoch would only disturb the session's other calls.
async fn renew(core: &Arc<Core>) -> bool {
    let epoch = core.epochs.current();
    core.known.begin_renewal();
    match renew_once(core, epoch).await {
        Ok(answer) => {
            let left = Duration::from_millis(answer.body.ttl_left_ms).min(core.ttl);
            core.renewed(answer.sent, left);
            known::give_back_unknown(core, answer.body.open_requests);
            true
        }
        Err(Failure {
            error: ClientError::SessionLost { .. },
            ..
        }) => {
            core.lose(LostReason::Ended);
            true
        }
        Err(failure) => {
            match failure.verdict {
                Verdict::EpochStale { stored } => {
                    core.epochs.after_stale(epoch, stored);
                    return false;
                }
                Verdict::Final => warn!(error = %failure.error, "renewal refused"),
                Verdict::NotDone | Verdict::Unknown => debug!(error = %failure.error, "no renewal"),
            }
            core.failing();
            false
        }
    }
}

async fn renew_once(core: &Core, epoch: u64) -> Result<Answer<RenewSessionResponse>, Failure> {
    let limit = try_limit(core);
    let message = RenewSessionRequest {
        session: Some(core.credentials.at(epoch)),
        list_open_requests: true,
    };
    core.shared
        .try_once(limit, true, message, |mut stub, request| async move {
            stub.renew_session(request).await
        })
        .await
}
