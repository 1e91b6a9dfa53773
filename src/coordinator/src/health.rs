//! Whether this coordinator can grant now, as the store itself says, and who is told.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use palisade_api::ErrorReason;
use palisade_api::v1::lease_service_server::{LeaseServiceServer, SERVICE_NAME};
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

use crate::clock::{Clock, within};
use crate::config::Timeouts;
use crate::metrics::Metrics;
use crate::service::Service;
use crate::store::{Failure, Store, StoreError};

/// The server whose health is told, so that the name below is its name.
pub(crate) type LeaseServer = LeaseServiceServer<Service>;

/// The services whose health is told: the whole, by the name that the protocol has for it, and the leases.
const TOLD: [&str; 2] = ["", SERVICE_NAME];

/// How a coordinator stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// The store has not answered yet.
    Starting,
    /// It would grant now.
    Ready,
    /// The store would not let it grant.
    NotReady(ErrorReason),
    /// It is on its way out. Final.
    Draining,
}

impl Health {
    /// Every reason there can be, for those who count by reason.
    pub(crate) fn reasons() -> impl Iterator<Item = &'static str> {
        let not_ready = [
            ErrorReason::StoreUnavailable,
            ErrorReason::HistoryRegressed,
            ErrorReason::WrongCluster,
            ErrorReason::LimitReached,
            ErrorReason::Internal,
        ];
        let all = [Self::Starting, Self::Draining].into_iter();
        all.chain(not_ready.map(Self::NotReady))
            .filter_map(Self::reason)
    }

    pub(crate) fn is_ready(self) -> bool {
        self == Self::Ready
    }

    /// Why it is not ready, in the words of `ErrorReason`.
    pub(crate) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Ready => None,
            Self::Starting => Some("STARTING"),
            Self::NotReady(reason) => Some(reason.reason()),
            Self::Draining => Some(ErrorReason::Draining.reason()),
        }
    }
}

/// Asks the store again and again whether it can grant.
pub(crate) async fn probe(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    timeouts: Timeouts,
    told: Arc<watch::Sender<Health>>,
    metrics: Metrics,
) {
    loop {
        let answer = ask(&*store, &clock, timeouts.readiness_limit).await;
        metrics.store_answers(does_answer(&answer));
        let health = match &answer {
            Ok(()) => Health::Ready,
            Err(error) => Health::NotReady(reason(error)),
        };
        let changed = told.send_if_modified(|known| {
            let changed = *known != health && *known != Health::Draining;
            if changed {
                *known = health;
            }
            changed
        });
        if let (true, Err(error)) = (changed, &answer) {
            let cause: &dyn Error = error;
            warn!(error = cause, "the store cannot grant");
        }
        clock.sleep(timeouts.readiness_interval).await;
    }
}

async fn ask(store: &dyn Store, clock: &Arc<dyn Clock>, limit: Duration) -> Result<(), StoreError> {
    match within(clock, limit, store.ready()).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(StoreError::unknown(Failure::Unavailable, elapsed)),
    }
}

/// Whatever it says, it is there.
fn does_answer(answer: &Result<(), StoreError>) -> bool {
    !matches!(
        answer,
        Err(StoreError::Failed {
            failure: Failure::Unavailable,
            ..
        })
    )
}

fn reason(error: &StoreError) -> ErrorReason {
    match error {
        StoreError::Failed { failure, .. } => match failure {
            Failure::HistoryRegressed | Failure::Generation(_) => ErrorReason::HistoryRegressed,
            Failure::WrongCluster => ErrorReason::WrongCluster,
            Failure::NoSpace => ErrorReason::LimitReached,
            Failure::Damaged(_) => ErrorReason::Internal,
            Failure::Unavailable => ErrorReason::StoreUnavailable,
        },
        StoreError::Refused(_) => ErrorReason::Internal,
    }
}

/// Tells gRPC health clients whatever becomes known.
pub(crate) async fn report(reporter: HealthReporter, mut known: watch::Receiver<Health>) {
    loop {
        let health = *known.borrow_and_update();
        match health.reason() {
            None => info!("ready"),
            Some(reason) => info!(reason, "not ready"),
        }
        tell(&reporter, health.is_ready()).await;
        if known.changed().await.is_err() {
            return;
        }
    }
}

pub(crate) async fn tell(reporter: &HealthReporter, is_ready: bool) {
    let status = if is_ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    for name in TOLD {
        reporter.set_service_status(name, status).await;
    }
}

/// Ends the streams of those who watch: they have been told, and would hold up the end.
pub(crate) async fn hang_up(mut reporter: HealthReporter) {
    for name in TOLD {
        reporter.clear_service_status(name).await;
    }
}
