//! Delayed copies on the way to a coordinator: a client has given up what it sent, and finished elsewhere, when the
//! network delivers it (I4, I5).

use std::sync::Arc;
use std::time::Duration;

use etcd_client::LeaseGrantOptions;
use palisade_api::v1::attach_open::Owner;
use palisade_api::v1::attach_response::Message as Told;
use palisade_api::v1::lease_service_client::LeaseServiceClient;
use palisade_api::v1::{AttachOpened, GetLeaseResponse};
use palisade_api::{ErrorReason, SessionRef};
use palisade_coordinator::clock::SystemClock;
use palisade_coordinator::entropy::SystemEntropy;
use palisade_coordinator::store::Store as _;
use palisade_coordinator::store::etcd::{EtcdOptions, EtcdStore};
use palisade_coordinator::store::memory::MemoryStore;
use palisade_coordinator::tasks::Tasks;
use palisade_test_support::{Etcd, Proxy, eventually};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::support::{Stream, again, close, known, open as opens, reference, renew};
use crate::store::{Mode, Switch, Write};
use crate::support::{
    Client, Coordinator, LONG, Serving, acquire, acquiring, again as once_more, asking, channel,
    get, memory, open, opening, outcome, refused, release, settings, token,
};

const NOW: Duration = Duration::ZERO;

/// Two coordinators on one store; what is sent to the first may be held back on the way.
struct Network {
    here: Coordinator,
    there: Coordinator,
    way: Proxy,
    /// Leads to the first one.
    client: Client,
}

impl Network {
    async fn start() -> Self {
        let memory = memory().await;
        let one = Switch::new(Arc::<MemoryStore>::clone(&memory));
        let here = Coordinator::with(one, settings()).await;
        let there = Coordinator::with(Switch::new(memory), settings()).await;
        let way = Proxy::start(&here.addresses.grpc.to_string())
            .await
            .unwrap();
        let channel = Channel::from_shared(way.url()).unwrap().connect().await;
        Self {
            here,
            there,
            way,
            client: LeaseServiceClient::new(channel.unwrap()),
        }
    }

    async fn stop(self) {
        drop(self.client);
        drop(self.way);
        self.here.stop().await;
        self.there.stop().await;
    }

    /// The session's newer stream, at the other coordinator.
    async fn elsewhere(&self, opened: &AttachOpened, epoch: u64) -> Stream {
        let session = reference(opened, epoch);
        let (stream, _) = Stream::resume(&self.there.client, &session, Vec::new()).await;
        stream
    }

    /// A client asks once more where it is answered, and finishes.
    async fn finishes(&self, stream: &mut Stream) {
        let seq = stream.send(again("x", "r", NOW)).await;
        let token = stream.hears_grant(seq).await;
        stream.release("x", token).await;
    }

    async fn lease(&self, resource: &str) -> GetLeaseResponse {
        get(&self.there.client, resource).await
    }
}

/// The status with which a late stream ends; nothing is granted on it.
async fn ends_ungranted(stream: &mut Stream) -> Status {
    loop {
        match stream.next().await {
            Ok(Some(told)) => assert!(
                !matches!(told.message, Some(Told::Granted(_))),
                "a finished acquire was granted again: {told:?}"
            ),
            Ok(None) => panic!("it was ended without a word"),
            Err(status) => return status,
        }
    }
}

fn is_refused(status: &Status, reason: ErrorReason, session: &str) {
    let told = refused(status, Code::Aborted, reason);
    assert_eq!(told["sessionId"], session);
}

#[tokio::test]
async fn a_delayed_call_does_not_acquire_again_what_was_finished_elsewhere() {
    let network = Network::start().await;
    let session = open(&network.client, "s").await;
    network.way.blackhole();
    let request = asking(&session, "r", "x", NOW);
    let late = acquiring(&network.client, request.clone());
    let granted = acquire(&network.there.client, once_more(request)).await;
    let newer = SessionRef {
        epoch: 2,
        ..session.clone()
    };
    release(&network.there.client, &newer, "x", token(&granted.unwrap())).await;
    network.way.heal().await.unwrap();
    let status = outcome(late).await.unwrap_err();
    is_refused(&status, ErrorReason::EpochStale, &session.session_id);
    assert_eq!(network.lease("x").await.lease, None);
    network.stop().await;
}

#[tokio::test]
async fn a_delayed_message_of_a_stream_does_not_acquire_again_what_was_finished_elsewhere() {
    let network = Network::start().await;
    let (mut first, opened) = Stream::open(&network.client, "s").await;
    network.way.blackhole();
    first.acquire("x", "r", NOW).await;
    let mut second = network.elsewhere(&opened, 2).await;
    network.finishes(&mut second).await;
    network.way.heal().await.unwrap();
    let status = ends_ungranted(&mut first).await;
    is_refused(&status, ErrorReason::Superseded, &opened.session_id);
    assert_eq!(network.lease("x").await.lease, None);
    second.renew(Vec::new()).await;
    drop(second);
    network.stop().await;
}

/// The whole stream is late: its first message, with what was sent right behind it.
#[tokio::test]
async fn a_delayed_attach_does_not_acquire_again_what_was_finished_elsewhere() {
    let network = Network::start().await;
    let (stream, opened) = Stream::open(&network.client, "s").await;
    let mut late = Stream::begin(&network.client).await;
    network.way.blackhole();
    drop(stream);
    let owner = Owner::Session(reference(&opened, 2));
    late.send(opens(owner, Vec::new())).await;
    late.acquire("x", "r", NOW).await;
    let mut newer = network.elsewhere(&opened, 3).await;
    network.finishes(&mut newer).await;
    network.way.heal().await.unwrap();
    let status = ends_ungranted(&mut late).await;
    is_refused(&status, ErrorReason::EpochStale, &opened.session_id);
    assert_eq!(network.lease("x").await.lease, None);
    newer.renew(Vec::new()).await;
    drop(newer);
    network.stop().await;
}

/// It names what its client knew of when it was sent.
#[tokio::test]
async fn a_delayed_renewal_gives_back_nothing_that_came_after_it() {
    let network = Network::start().await;
    let (mut first, opened) = Stream::open(&network.client, "s").await;
    network.way.blackhole();
    first.send(renew(Vec::new())).await;
    let mut second = network.elsewhere(&opened, 2).await;
    let token = second.granted("x", "r").await;
    network.way.heal().await.unwrap();
    let end = tokio::spawn(async move { first.end().await });
    let held = async || network.lease("x").await.lease.map(|lease| lease.token);
    let dealt_with = async || end.is_finished() || held().await != Some(token);
    eventually("the renewal is dealt with", LONG, dealt_with)
        .await
        .unwrap();
    assert_eq!(held().await, Some(token), "it was given back");
    let status = outcome(end).await.unwrap_err();
    is_refused(&status, ErrorReason::Superseded, &opened.session_id);
    second.renew(vec![known("x", "r", token)]).await;
    second.release("x", token).await;
    drop(second);
    network.stop().await;
}

/// A coordinator does not know what became of an acquire, nor of the raise after it. Its client finishes elsewhere; the
/// raise, tried again, finds a mark that is not its stream's, and so nothing is tried again.
#[tokio::test]
async fn a_stream_whose_raise_has_an_unknown_outcome_retries_nothing_once_it_is_superseded() {
    let network = Network::start().await;
    let (mut first, opened) = Stream::open(&network.client, "s").await;
    let store = &network.here.store;
    store.mode.send_replace(Mode::LosesAcquiresAndRaises);
    first.acquire("x", "r", NOW).await;
    let count = |of| {
        let journal = store.journal.lock().unwrap();
        journal.iter().filter(|(write, _)| *write == of).count()
    };
    let raises = async || count(Write::Raise) >= 2;
    eventually("it tries to raise again", LONG, raises)
        .await
        .unwrap();
    let mut second = network.elsewhere(&opened, 2).await;
    network.finishes(&mut second).await;
    store.mode.send_replace(Mode::Up);
    let status = ends_ungranted(&mut first).await;
    is_refused(&status, ErrorReason::Superseded, &opened.session_id);
    assert_eq!(count(Write::Acquire), 1, "it was submitted again");
    assert_eq!(network.lease("x").await.lease, None);
    second.renew(Vec::new()).await;
    drop(second);
    network.stop().await;
}

/// A coordinator on a real etcd, and its store.
async fn on_etcd(etcd: &Etcd) -> (Serving, Client, Arc<EtcdStore>) {
    let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
    let options = EtcdOptions::new(etcd.endpoints());
    let store = EtcdStore::new(options, clock, entropy, &Tasks::default());
    let serving = Serving::start(Arc::<EtcdStore>::clone(&store), settings()).await;
    let client = LeaseServiceClient::new(channel(serving.addresses).await);
    (serving, client, store)
}

/// An opening got halfway: the session's time runs in etcd, and nothing else of it is there. Who opens it once more is
/// told what is left of that time, and not all of it (I8).
#[tokio::test]
async fn a_session_that_was_opened_halfway_before_is_told_what_is_left_of_its_time() {
    const TTL_SECONDS: i64 = 10;
    let etcd = Etcd::start().await.unwrap();
    let (serving, client, _) = on_etcd(&etcd).await;
    let open = async || {
        let mut opening = opening("s");
        opening.ttl_ms = u64::try_from(TTL_SECONDS).unwrap() * 1000;
        Stream::with(&client, Owner::Opening(opening), Vec::new()).await
    };
    let (mut stream, _) = open().await;
    let etcd = etcd_client::Client::connect(etcd.endpoints(), None).await;
    let mut times = etcd.unwrap().lease_client();
    let found = times.leases().await.unwrap();
    let [time] = found.leases() else {
        panic!("a session has one: {found:?}");
    };
    let time = time.id();
    stream.send(close()).await;
    stream.end().await.unwrap();
    // The first half of what opens the same session.
    let same = LeaseGrantOptions::new().with_id(time);
    times.grant(TTL_SECONDS, Some(same)).await.unwrap();
    let mut left = async || {
        let left = times.time_to_live(time, None).await.unwrap();
        left.ttl()
    };
    let has_passed = async || left().await <= TTL_SECONDS - 3;
    eventually("a part of it passes", LONG, has_passed)
        .await
        .unwrap();
    let (stream, opened) = open().await;
    // etcd tells whole seconds, rounded down.
    let most = u64::try_from(left().await + 1).unwrap() * 1000;
    assert!(
        opened.ttl_left_ms <= most,
        "{} ms were told, and at most {most} are left",
        opened.ttl_left_ms
    );
    drop(stream);
    serving.shutdown.cancel();
    outcome(serving.running).await.unwrap();
}

/// A restore revives a lease that its client has released, and the client lives on and renews its session: nobody knows of
/// the lease, and yet it would stand as long as the session does (I5).
#[tokio::test]
async fn a_lease_that_a_restore_revives_is_given_back_by_its_living_client() {
    let mut etcd = Etcd::start().await.unwrap();
    let (serving, client, store) = on_etcd(&etcd).await;
    let (mut stream, _) = Stream::open(&client, "s").await;
    let kept = stream.granted("kept", "k").await;
    let revived = stream.granted("x", "r").await;
    let snapshot = etcd.snapshot_save("before").await.unwrap();
    stream.release("x", revived).await;
    let session = open(&client, "other").await;
    let next = acquire(&client, asking(&session, "1", "x", NOW)).await;
    let lost = token(&next.unwrap());
    etcd.restore_from(&snapshot).await.unwrap();
    let is_back = async || store.ready().await.is_ok();
    eventually("etcd is back", LONG, is_back).await.unwrap();
    let held = async || get(&client, "x").await.lease.map(|lease| lease.token);
    assert_eq!(held().await, Some(revived), "the restore revives it");
    stream.renew(vec![known("kept", "k", kept)]).await;
    let given_back = async || held().await.is_none();
    eventually("what is not named is given back", LONG, given_back)
        .await
        .unwrap();
    let session = open(&client, "another").await;
    let next = acquire(&client, asking(&session, "1", "x", NOW)).await;
    assert!(token(&next.unwrap()) > lost, "above all before the restore");
    // What the client does know of is as it was.
    let lease = get(&client, "kept").await.lease;
    assert_eq!(lease.map(|lease| lease.token), Some(kept));
    stream.renew(vec![known("kept", "k", kept)]).await;
    drop(stream);
    serving.shutdown.cancel();
    outcome(serving.running).await.unwrap();
}
