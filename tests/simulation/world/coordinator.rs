//! A coordinator's process: the real service behind the real transport, on simulated links and clocks.

use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::admin_service_server::AdminServiceServer;
use palisade_api::v1::lease_service_server::LeaseServiceServer;
use palisade_coordinator::clock::Clock;
use palisade_coordinator::config::{Limits, Timeouts};
use palisade_coordinator::metrics::Metrics;
use palisade_coordinator::service::{Admin, Parts, Service};
use palisade_coordinator::tasks::Tasks;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::dice::{Chance, Dice};
use super::net::Door;
use super::reach::{Reach, Ways};
use super::time::{Gate, HostClock, Skew};
use crate::history::Host;
use crate::planted::Planted;

/// How often a quiet connection is asked whether its client is there, as the product does.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// One process of a coordinator.
pub(crate) struct Coordinator {
    host: Host,
    pub(crate) gate: Arc<Gate>,
    tasks: Tasks,
    service: Service,
    serving: JoinHandle<()>,
}

impl Coordinator {
    pub(crate) fn start(
        ways: &Arc<Ways>,
        planted: &Arc<dyn Planted>,
        (number, skew): (u16, Skew),
        mut dice: Dice,
    ) -> Self {
        let host = Host::Coordinator(number);
        let gate = Gate::new();
        let clock = HostClock::new(&ways.truth, &gate, skew);
        let reach = Reach::new(
            ways,
            (host, &gate),
            (&clock, skew.wall_ahead),
            Dice::new(dice.roll()),
        );
        let tasks = Tasks::default();
        let parts = Parts {
            store: planted.store(reach, &ways.recorder),
            clock,
            entropy: Arc::new(Chance::new(dice)),
            tasks: tasks.clone(),
            metrics: Metrics::default(),
        };
        let draining = CancellationToken::new();
        let service = Service::start(parts, Limits::default(), Timeouts::default(), draining);
        let admin = Admin::beside(service.clone());
        let (accept, accepted) = mpsc::unbounded_channel();
        let router = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(LeaseServiceServer::new(service.clone()))
            .add_service(AdminServiceServer::new(admin));
        let serving = ways.truth.spawn(async move {
            let incoming = UnboundedReceiverStream::new(accepted);
            drop(router.serve_with_incoming(incoming).await);
        });
        let door = Door {
            gate: Arc::clone(&gate),
            accept,
        };
        ways.net.open_door(host, door);
        Self {
            host,
            gate,
            tasks,
            service,
            serving,
        }
    }

    /// How many sessions' streams are open here.
    pub(crate) fn streams(&self) -> u64 {
        u64::try_from(self.service.streams()).unwrap()
    }

    /// It ends at once. What it had sent is on its way; nobody hears what becomes of it.
    pub(crate) async fn crash(self, ways: &Ways) {
        self.gate.ruin();
        ways.net.close_door(self.host);
        ways.net.stir();
        self.serving.abort();
        let clock: Arc<dyn Clock> = HostClock::new(&ways.truth, &Gate::new(), Skew::none());
        self.tasks.stop(&clock, Duration::ZERO).await;
    }
}
