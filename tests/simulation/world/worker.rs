//! A client's process: the real library, used as an application uses it: acquire, seal, read, write, release.

use std::sync::Arc;
use std::time::Duration;

use palisade_client::{
    AcquireOptions, Client, ClientError, Clock, Lease, RevokeOptions, RevokeOutcome, Session,
    SessionOptions, SessionState, Transport,
};
use palisade_coordinator::domain::{RequestId, SessionId};
use palisade_token::{Grant, ResourceName};
use tokio_util::sync::CancellationToken;

use super::dice::{Chance, Dice};
use super::net::{Dialler, Net};
use super::time::{Gate, HostClock, Skew, Truth};
use crate::history::{Barred, CallId, Host, Operation, Outcome, Reason, Recorder, Standing, What};
use crate::planted::Planted;
use crate::vault::Vault;

/// How long a process waits before it opens a session anew, at most.
const PAUSE_MILLIS: u64 = 800;
/// The longest that a lease is worked under at a time.
const WORK_MILLIS: u64 = 2_500;

/// How many effects there are to be done: so few that some are tried again by later holders.
const KEYS: u64 = 64;

/// What every process of the run is given.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) truth: Truth,
    pub(crate) net: Arc<Net>,
    pub(crate) recorder: Recorder,
    pub(crate) vault: Arc<dyn Vault>,
    pub(crate) planted: Arc<dyn Planted>,
    pub(crate) coordinators: u16,
    pub(crate) resources: Vec<ResourceName>,
    pub(crate) ttl: Duration,
    pub(crate) longest_wait: Duration,
    /// From then on nothing new is asked for.
    pub(crate) quiet: CancellationToken,
}

/// One process.
pub(crate) struct Worker {
    world: Surroundings,
    host: Host,
    gate: Arc<Gate>,
    clock: Arc<HostClock>,
    client: Client,
    dice: Dice,
    is_operator: bool,
}

impl Worker {
    pub(crate) fn new(
        world: Surroundings,
        (number, gate, skew): (u16, &Arc<Gate>, Skew),
        is_operator: bool,
        mut dice: Dice,
    ) -> Self {
        let host = Host::Client(number);
        let clock = HostClock::new(&world.truth, gate, skew);
        let dialler = Dialler {
            net: Arc::clone(&world.net),
            host,
            gate: Arc::clone(gate),
        };
        let shown: Arc<dyn Clock> = Arc::<HostClock>::clone(&clock);
        let transport = match dice.below(4) {
            0 => Transport::Unary,
            _ => Transport::Stream,
        };
        let client = Client::builder()
            .endpoints((0..world.coordinators).map(|number| format!("http://c{number}")))
            .clock(world.planted.client_clock(shown))
            .entropy(Arc::new(Chance::new(Dice::new(dice.roll()))))
            .connector(Arc::new(dialler))
            .transport(transport)
            .connect();
        Self {
            host,
            gate: Arc::clone(gate),
            clock,
            client: client.expect("the endpoints are well-formed"),
            dice,
            is_operator,
            world,
        }
    }

    /// Until all is quiet.
    pub(crate) async fn live(mut self) {
        while !self.world.quiet.is_cancelled() {
            if self.is_operator {
                self.operate().await;
                continue;
            }
            let options = SessionOptions::default().ttl(self.world.ttl);
            match self.client.open_session(options).await {
                Ok(session) => self.work_in(session).await,
                Err(_) => self.rest(PAUSE_MILLIS).await,
            }
        }
        // What was given up is given back; what is not ends by its time.
        self.client.settled(self.world.ttl).await;
    }

    async fn rest(&mut self, most: u64) {
        let rest = self.dice.millis(1, most);
        self.clock.sleep(rest).await;
        self.gate.pass().await;
    }

    fn resource(&mut self) -> ResourceName {
        self.dice.any_of(&self.world.resources)
    }

    async fn work_in(&mut self, session: Session) {
        let id: SessionId = session.id().parse().expect("coordinators tell ids");
        let turns = self.dice.between(1, 12);
        for _turn in 0..turns {
            if self.world.quiet.is_cancelled() || !self.look(id, &session).is_held() {
                break;
            }
            match self.dice.below(12) {
                0..=7 => self.one_lease(id, &session).await,
                8 => self.two_leases(id, &session).await,
                _ => self.rest(PAUSE_MILLIS).await,
            }
        }
        self.look(id, &session);
        match self.dice.below(4) {
            0 => drop(session),
            1 => {
                // Forgotten in the heat: it renews on until its handle goes.
                self.rest(PAUSE_MILLIS).await;
            }
            _ => drop(session.close().await),
        }
    }

    async fn one_lease(&mut self, id: SessionId, session: &Session) {
        let resource = self.resource();
        if let Some(lease) = self.acquire(id, session, &resource).await {
            self.work(id, session, lease).await;
        }
    }

    /// One while the other is held.
    async fn two_leases(&mut self, id: SessionId, session: &Session) {
        let (one, other) = (self.resource(), self.resource());
        let Some(first) = self.acquire(id, session, &one).await else {
            return;
        };
        // Without a wait, or two processes could wait for each other.
        if let Some(second) = self.ask(id, session, &other, Duration::ZERO).await {
            self.work(id, session, second).await;
        }
        self.work(id, session, first).await;
    }

    async fn acquire(
        &mut self,
        id: SessionId,
        session: &Session,
        resource: &ResourceName,
    ) -> Option<Lease> {
        let wait = match self.dice.below(4) {
            0 => Duration::ZERO,
            1 => self.dice.millis(50, 1_500),
            _ => {
                let most = u64::try_from(self.world.longest_wait.as_millis()).unwrap();
                self.dice.millis(1_000, most)
            }
        };
        if !self.dice.one_in(10) {
            return self.ask(id, session, resource, wait).await;
        }
        // It loses patience, and tells nobody.
        let patience = self.dice.millis(1, 1_000);
        let clock = Arc::clone(&self.clock);
        tokio::select! {
            biased;
            lease = self.ask(id, session, resource, wait) => lease,
            () = clock.sleep(patience) => None,
        }
    }

    async fn ask(
        &self,
        id: SessionId,
        session: &Session,
        resource: &ResourceName,
        wait: Duration,
    ) -> Option<Lease> {
        let options = AcquireOptions::default().wait(wait);
        let operation = Operation::Acquire {
            request: None,
            waits: !wait.is_zero(),
        };
        let call = self
            .world
            .recorder
            .ask(self.host, Some(id), resource.clone(), operation);
        let mut told = Told::new(&self.world.recorder, call);
        let answer = session.acquire(resource, options).await;
        self.gate.pass().await;
        self.world.truth.now();
        match answer {
            Ok(lease) => {
                let grant = lease.info().grant.clone();
                told.tell(Outcome::Acquired {
                    token: grant.token,
                    holder: grant.holder,
                    request: RequestId::new(&lease.info().request_id).ok(),
                });
                Some(lease)
            }
            Err(error) => {
                told.tell(outcome(&error));
                None
            }
        }
    }

    /// Acquire comes before seal, seal before read, read before write.
    async fn work(&mut self, id: SessionId, session: &Session, lease: Lease) {
        if let Some(grant) = self.granted(id, &lease)
            && self.at_guard(&grant, Doing::Seal).await.is_ok()
            && self.at_guard(&grant, Doing::Read).await.is_ok()
        {
            for _write in 0..self.dice.below(4) {
                if self.dice.one_in(3) {
                    self.rest(WORK_MILLIS).await;
                }
                // One in some works on with what it has in its hand, whatever the library says.
                let forgets = self.dice.one_in(4);
                if !forgets && self.granted(id, &lease).is_none() {
                    break;
                }
                let key = (!self.dice.one_in(3)).then(|| self.dice.below(KEYS));
                if self.at_guard(&grant, Doing::Write(key)).await.is_err() {
                    break;
                }
                if self.dice.one_in(6) {
                    // The same once more, as after an answer that was lost.
                    let _again: Result<(), Barred> = self.at_guard(&grant, Doing::Write(key)).await;
                }
            }
        }
        self.look(id, session);
        match self.dice.below(6) {
            0 => drop(lease),
            1 => {
                self.rest(WORK_MILLIS).await;
                self.granted(id, &lease);
                self.release(id, lease).await;
            }
            _ => self.release(id, lease).await,
        }
    }

    async fn release(&self, id: SessionId, lease: Lease) {
        let operation = Operation::Release {
            token: lease.token(),
        };
        let resource = lease.resource().clone();
        let call = self
            .world
            .recorder
            .ask(self.host, Some(id), resource, operation);
        let mut told = Told::new(&self.world.recorder, call);
        let answer = lease.release().await;
        self.gate.pass().await;
        self.world.truth.now();
        told.tell(match answer {
            Ok(released) if released.ended_before.is_none() => Outcome::Ended,
            Ok(_) => Outcome::NotHeld,
            Err(error) => outcome(&error),
        });
    }

    /// What the library gives out, if it does, written down.
    fn granted(&self, id: SessionId, lease: &Lease) -> Option<Grant> {
        self.world.truth.now();
        let given = lease.grant();
        let about = Some((lease.resource().clone(), lease.token()));
        let standing = match &given {
            Ok(_) => Standing::Gave,
            Err(_) => standing(lease.state()),
        };
        self.say(id, about, standing);
        given.ok()
    }

    fn look(&self, id: SessionId, session: &Session) -> SessionState {
        self.world.truth.now();
        let state = session.state();
        self.say(id, None, standing(state));
        state
    }

    fn say(
        &self,
        session: SessionId,
        lease: Option<(ResourceName, palisade_token::FencingToken)>,
        standing: Standing,
    ) {
        self.world.recorder.note(What::Said {
            host: self.host,
            session,
            lease,
            standing,
        });
    }

    /// What was sent goes on, whatever becomes of this process.
    async fn at_guard(&self, grant: &Grant, doing: Doing) -> Result<(), Barred> {
        self.gate.pass().await;
        let (net, vault) = (Arc::clone(&self.world.net), Arc::clone(&self.world.vault));
        let (host, grant) = (self.host, grant.clone());
        let sent = self.world.truth.spawn(async move {
            net.travel(host, Host::Guard).await;
            let done = match doing {
                Doing::Seal => vault.seal(host, &grant).await,
                Doing::Read => vault.read(host, &grant).await.map(drop),
                Doing::Write(key) => vault.write(host, &grant, key).await,
            };
            net.travel(Host::Guard, host).await;
            done
        });
        let done = sent.await.expect("the guard does not panic");
        self.gate.pass().await;
        done
    }

    /// An operator looks at who holds something, and ends it.
    async fn operate(&mut self) {
        self.rest(6_000).await;
        let resource = self.resource();
        let Ok(seen) = self.client.get_lease(&resource, 0).await else {
            return;
        };
        let Some(lease) = seen.lease else { return };
        if self.world.quiet.is_cancelled() {
            return;
        }
        let token = lease.grant.token;
        let call = self.world.recorder.ask(
            self.host,
            None,
            resource.clone(),
            Operation::Revoke { token },
        );
        let mut told = Told::new(&self.world.recorder, call);
        let asks = self.dice.one_in(2);
        let patience = Duration::from_secs(if asks { 2 } else { 0 });
        let why = RevokeOptions::because("a simulated operator", "operator").ask_for(patience);
        let answer = self.client.revoke_lease(&resource, token, why).await;
        self.gate.pass().await;
        self.world.truth.now();
        told.tell(match answer {
            Ok(revoked) => match revoked.outcome {
                RevokeOutcome::Revoked => Outcome::Ended,
                RevokeOutcome::Released | RevokeOutcome::EndedBefore => Outcome::NotHeld,
                _ => Outcome::Unknown,
            },
            Err(error) => outcome(&error),
        });
    }
}

#[derive(Debug, Clone, Copy)]
enum Doing {
    Seal,
    Read,
    Write(Option<u64>),
}

/// A call that is told of, at the latest when it is dropped: then nobody knows what it comes to.
struct Told<'a> {
    recorder: &'a Recorder,
    call: CallId,
    is_told: bool,
}

impl<'a> Told<'a> {
    fn new(recorder: &'a Recorder, call: CallId) -> Self {
        Self {
            recorder,
            call,
            is_told: false,
        }
    }

    fn tell(&mut self, outcome: Outcome) {
        self.is_told = true;
        self.recorder.tell(self.call, outcome);
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if !self.is_told {
            self.recorder.tell(self.call, Outcome::Unknown);
        }
    }
}

fn standing(state: SessionState) -> Standing {
    match state {
        SessionState::Held => Standing::Held,
        SessionState::Suspect => Standing::Suspect,
        SessionState::Lost(reason) => Standing::Lost(reason),
        _ => Standing::Expired,
    }
}

/// What a client is told by an error.
fn outcome(error: &ClientError) -> Outcome {
    let refused = match error {
        ClientError::Held { .. } => Reason::LeaseHeld,
        ClientError::AlreadyHeld { .. } => Reason::AlreadyHeld,
        ClientError::WaitExpired { .. } => Reason::WaitExpired,
        ClientError::Invalid { .. } => Reason::Invalid,
        ClientError::StaleToken { .. } => Reason::StaleToken,
        ClientError::Unavailable {
            may_have_happened: false,
            ..
        } => Reason::Unavailable,
        ClientError::LimitReached {
            may_have_happened: false,
            ..
        } => Reason::LimitReached,
        // A session may have been granted what it lost again, and the like.
        _ => return Outcome::Unknown,
    };
    Outcome::Refused(refused)
}
