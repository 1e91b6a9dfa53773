//! One connection to one etcd endpoint, and what it may be trusted with.

mod generation;
mod under_way;

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use etcd_client::{
    Client, Compare, Error, KvClient, LeaseClient, ResponseHeader, Txn, TxnOp, TxnOpResponse,
    TxnResponse, WatchClient,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::under_way::{InFlight, Patience};
use super::batch::{self, Decided, Steps};
use super::codec::{Stored, revision};
use super::connect;
use super::counted::{self, Reply};
use super::fault::{Fault, Kind};
use super::keepalive::Keepalive;
use super::keys::Keys;
use super::known::Known;
use super::liveness::Liveness;
use super::reads::Reads;
use super::step::Step;
use super::trust::{Reached, Trust};
use super::vitals::{self, Vitals};
use crate::clock::{Clock, within};
use crate::config::EtcdAccess;
use crate::domain::{Generation, Revision};
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::store::{Failure, Outcome, StoreError};
use crate::tasks::Tasks;

/// How long a TCP and HTTP/2 connection may take to open: an etcd that needs longer is as good as away.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// What links are made with.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) keys: Keys,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) call_limit: Duration,
    pub(super) metrics: Metrics,
    /// Whether steps travel together.
    pub(super) is_batching: bool,
    pub(super) tasks: Tasks,
    pub(super) liveness: Arc<Liveness>,
    pub(super) access: Arc<EtcdAccess>,
}

/// The longest reply that is read: 112 steps that all fail show four claims each, of 10 KB at the most.
const MAX_REPLY_BYTES: usize = 16 * 1024 * 1024;

/// One connection. It is never opened again: its connector works once, so a reply over it comes from the
/// process that it was opened to.
pub(super) struct Link {
    client: Client,
    context: Context,
    cluster: u64,
    trust: Mutex<Trust>,
    making: tokio::sync::Mutex<()>,
    broken: CancellationToken,
    in_flight: AtomicU64,
    /// What was seen and done over this connection.
    known: Known,
    /// Where steps wait to travel together, once [`Link::start`] was called.
    steps: OnceLock<Steps>,
    reads: Reads,
    keepalive: Keepalive,
    /// etcd takes no more data, as it has last said.
    is_full: AtomicBool,
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Link")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// Opens a connection, asks the member for its vitals, and reads the generation. No vitals are told where
    /// etcd does not let everybody know them.
    pub(super) async fn open(
        url: &str,
        context: Context,
    ) -> Result<(Self, Option<Vitals>), StoreError> {
        let unavailable = |source| StoreError::Failed {
            failure: Failure::Unavailable,
            outcome: Outcome::NotApplied,
            source: Some(source),
        };
        let opening = connect::open(url, &context.access, &context.clock);
        let connected = match within(&context.clock, CONNECT_LIMIT, opening).await {
            Ok(connected) => connected.map_err(unavailable)?,
            Err(elapsed) => return Err(unavailable(elapsed.into())),
        };
        let broken = CancellationToken::new();
        let keepalive = Keepalive::new(&connected, &context, broken.clone());
        let connect::Connected { client, .. } = connected;
        let mut link = Self {
            client,
            context,
            cluster: 0,
            in_flight: AtomicU64::new(0),
            trust: Mutex::default(),
            making: tokio::sync::Mutex::default(),
            broken,
            known: Known::default(),
            keepalive,
            is_full: AtomicBool::new(false),
            steps: OnceLock::new(),
            reads: Reads::default(),
        };
        let mut maintenance = link.client.maintenance_client();
        let asked = Vitals::of(&mut maintenance);
        let asked = within(&link.context.clock, link.context.call_limit, asked).await;
        let vitals = match asked.map_err(|elapsed| unavailable(elapsed.into()))? {
            Ok(vitals) => Some(vitals),
            Err(fault) if vitals::is_secret(&fault) => None,
            Err(fault) => return Err(unavailable(fault.into())),
        };
        if let Some(vitals) = &vitals {
            link.set_full(vitals.alarms.is_full);
        }
        let (_, header) = link.read_generation().await?;
        link.cluster = header.cluster_id();
        Ok((link, vitals))
    }

    /// The cluster that the endpoint belongs to.
    pub(super) fn cluster(&self) -> u64 {
        self.cluster
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// What was seen and done over this connection: revisions name leases only within one history.
    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    /// Cancelled once the connection is of no further use.
    pub(super) fn broken(&self) -> &CancellationToken {
        &self.broken
    }

    pub(super) fn give_up(&self) {
        self.broken.cancel();
    }

    /// Whether etcd takes no more data. Not every version holds nested transactions to that, so nothing
    /// is granted then.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Takes note of whether etcd takes more data.
    pub(super) fn set_full(&self, is_full: bool) {
        let was_full = self.is_full.swap(is_full, Ordering::Relaxed);
        match (was_full, is_full) {
            (false, true) => warn!(
                "etcd is out of space and takes no more data: nothing is granted; compact and defragment it, \
                 then disarm its alarm"
            ),
            (true, false) => info!("etcd has space again"),
            (false, false) | (true, true) => {}
        }
    }

    pub(super) fn leases(&self) -> LeaseClient {
        self.client.lease_client()
    }

    pub(super) fn keepalive(&self) -> &Keepalive {
        &self.keepalive
    }

    pub(super) fn reads(&self) -> &Reads {
        &self.reads
    }

    pub(super) fn watcher(&self) -> WatchClient {
        self.client.watch_client()
    }

    /// How many calls are under way.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The generation that is trusted here, and the highest revision that was seen.
    pub(super) fn seen(&self) -> (Option<Generation>, Revision) {
        let trust = self.trust();
        let trusted = trust.trusted().map(|trusted| trusted.record);
        (trusted, trust.reached().revision)
    }

    fn kv(&self) -> KvClient {
        let kv = self.client.kv_client();
        kv.max_decoding_message_size(MAX_REPLY_BYTES)
    }

    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn trusted(&self) -> Option<Stored<Generation>> {
        self.trust().trusted().cloned()
    }

    /// Waits for what travels with others. Whoever waits in vain shows that the connection is of no use.
    pub(super) async fn waited_for<T>(&self, work: impl Future<Output = T>) -> T {
        let waiting = Patience::begin(self);
        let done = work.await;
        waiting.end();
        done
    }

    /// Waits for a reply, no longer than a call may take. What breaks the connection ends its use.
    pub(super) async fn call<T: Reply + Send>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Fault> {
        let waiting = Patience::begin(self);
        let done = self.call_alone(work).await;
        waiting.end();
        if let Err(fault) = &done
            && fault.kind == Kind::Broken
        {
            warn!(error = %fault.source, "etcd connection given up");
            self.give_up();
        }
        done
    }

    /// Like [`Link::call`], for work that one session can hold up: it says nothing of the connection, so
    /// that a dying session ends nobody else's calls (I12).
    pub(super) async fn call_alone<T: Reply + Send>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Fault> {
        let Context { clock, metrics, .. } = &self.context;
        let sent = clock.now();
        let _counted = InFlight::one(&self.in_flight);
        let done = match within(clock, self.context.call_limit, work).await {
            Ok(done) => done.map_err(Fault::of),
            Err(elapsed) => Err(Fault::of(Error::IoError(io::Error::other(elapsed)))),
        };
        metrics.etcd_request(T::OP, sent.until(clock.now()), counted::outcome(&done));
        done
    }

    /// A transaction that only reads: linearizable, and no entry in etcd's log.
    pub(super) async fn read(
        &self,
        reads: Vec<TxnOp>,
    ) -> Result<(Vec<TxnOpResponse>, ResponseHeader), StoreError> {
        let sent = self.trust().reached();
        let mut kv = self.kv();
        let reply = self
            .call(kv.txn(Txn::new().and_then(reads)))
            .await
            .map_err(|fault| {
                if fault.kind == Kind::Refused {
                    // Whoever may not even read shows the wrong credentials: a new connection reads them anew.
                    self.give_up();
                }
                fault.into_unsent()
            })?;
        let header = self.header(&reply).map_err(|misfit| misfit.error(false))?;
        let now = reached(&header)?;
        if now.revision < sent.revision {
            // Some versions of etcd answer so after a pause. It proves no regress, but it is no fact either.
            warn!(?sent, ?now, "a stale read from etcd; connection given up");
            self.give_up();
            return Err(StoreError::not_applied(Failure::Unavailable));
        }
        self.trust().saw(now);
        Ok((reply.op_responses(), header))
    }

    /// Lets steps travel together from here on.
    pub(super) fn start(self: &Arc<Self>) {
        if !self.context.is_batching {
            return;
        }
        let (steps, work) = Steps::new(self);
        if self.steps.set(steps).is_ok() {
            self.context.tasks.spawn("etcd: group commit", work);
        }
    }

    /// Takes a step, with others if there are any.
    pub(super) async fn submit(&self, step: Step) -> Result<Decided, StoreError> {
        let steps = self.steps.get();
        let is_of_use = !self.broken.is_cancelled();
        let may_go = steps.filter(|_| is_of_use && !step.may_be_late);
        let turn = may_go.and_then(Steps::direct);
        match (steps, &turn) {
            (Some(steps), None) => {
                let since = self.context.clock.now();
                self.waited_for(steps.submit(step, since)).await
            }
            (_, _) => Box::pin(self.take_alone(step)).await,
        }
    }

    async fn take_alone(&self, step: Step) -> Result<Decided, StoreError> {
        let sent = self.reached();
        let reply = match self.transact(batch::flat(&self.context.keys, step)).await {
            Ok(reply) => reply,
            Err(fault) if fault.kind == Kind::LeaseGone => return Ok(Decided::Poisoned),
            Err(fault) => return Err(fault.into_error()),
        };
        let succeeded = reply.succeeded();
        match self.judge_reply(&reply, sent, succeeded) {
            Ok((_, committed)) if succeeded => Ok(Decided::Applied(committed, reply)),
            Ok((header, _)) => Ok(Decided::Otherwise(reply.op_responses(), header)),
            Err(failure) => Err(failure.error(succeeded)),
        }
    }

    /// Sends a transaction, and nothing besides: see [`Link::judge_reply`].
    pub(super) async fn transact(&self, txn: Txn) -> Result<TxnResponse, Fault> {
        let mut kv = self.kv();
        self.call(kv.txn(txn)).await.map_err(Fault::of_write)
    }

    /// What was seen so far: taken before a transaction is sent.
    pub(super) fn reached(&self) -> Reached {
        self.trust().reached()
    }

    /// What the reply to a transaction shows of etcd's history. `wrote` says whether it wrote anything.
    pub(super) fn judge_reply(
        &self,
        reply: &TxnResponse,
        sent: Reached,
        wrote: bool,
    ) -> Result<(ResponseHeader, Committed), Misfit> {
        let header = self.header(reply)?;
        let now = reached(&header).map_err(|_| Misfit::Damaged)?;
        let is_regress = wrote && Trust::is_regress(sent, now);
        if is_regress {
            warn!(
                ?sent,
                ?now,
                "etcd's history went backwards; connection given up"
            );
            self.give_up();
        } else {
            self.trust().saw(now);
        }
        let committed = Committed {
            reached: now,
            is_regress,
        };
        Ok((header, committed))
    }

    /// A transaction that writes, by itself. `None` where a compare failed: nothing happened, look again.
    pub(super) async fn write(
        &self,
        compares: Vec<Compare>,
        writes: Vec<TxnOp>,
    ) -> Result<Option<Committed>, StoreError> {
        let sent = self.reached();
        let txn = Txn::new().when(compares).and_then(writes);
        let reply = match self.transact(txn).await {
            Ok(reply) => reply,
            Err(fault) if fault.kind == Kind::LeaseGone => return Ok(None),
            Err(fault) => return Err(fault.into_error()),
        };
        let succeeded = reply.succeeded();
        match self.judge_reply(&reply, sent, succeeded) {
            Ok((_, committed)) => Ok(succeeded.then_some(committed)),
            Err(misfit) => Err(misfit.error(succeeded)),
        }
    }

    /// Whether compares hold, decided in etcd's log: what a read shows may be stale, what this says is not.
    pub(super) async fn confirm_in_log(&self, compares: Vec<Compare>) -> Result<bool, StoreError> {
        let mut kv = self.kv();
        // Deleting what is never there changes nothing, and makes the transaction an entry of the log.
        let entry = TxnOp::delete(self.context.keys.nothing(), None);
        let txn = Txn::new().when(compares).and_then(vec![entry]);
        let reply = self.call(kv.txn(txn)).await.map_err(Fault::into_unsent)?;
        self.header(&reply).map_err(|misfit| misfit.error(false))?;
        Ok(reply.succeeded())
    }

    fn header(&self, reply: &TxnResponse) -> Result<ResponseHeader, Misfit> {
        let header = reply.header().ok_or(Misfit::Damaged)?;
        if self.cluster != 0 && header.cluster_id() != self.cluster {
            self.give_up();
            return Err(Misfit::WrongCluster);
        }
        Ok(header.clone())
    }
}

/// A reply that is not one of the etcd that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    WrongCluster,
    Damaged,
}

impl Misfit {
    pub(super) fn error(self, may_have_happened: bool) -> StoreError {
        let error = StoreError::not_applied(match self {
            Self::WrongCluster => Failure::WrongCluster,
            Self::Damaged => Failure::Damaged("a reply without a header"),
        });
        match may_have_happened {
            true => error.or_happened(),
            false => error,
        }
    }
}

/// A write that is in etcd's log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Committed {
    pub(super) reached: Reached,
    /// The reply shows that history went backwards: a grant is not told but given back.
    pub(super) is_regress: bool,
}

fn reached(header: &ResponseHeader) -> Result<Reached, StoreError> {
    Ok(Reached {
        revision: revision(header.revision())?,
        term: header.raft_term(),
    })
}

#[cfg(test)]
mod tests;
