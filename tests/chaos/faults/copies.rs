//! F12: the same request more than once. A link between two programs that speak TCP repeats nothing; what repeats is
//! whoever tries again, also through another coordinator, and what lay about meanwhile.

use etcd_client::{Client as EtcdClient, EventType, WatchOptions};
use palisade_api::v1::acquire_request::Owner;
use palisade_api::v1::lease_service_client::LeaseServiceClient;
use palisade_api::v1::release_request::Hold;
use palisade_api::v1::{
    AcquireRequest, OpenSessionRequest, ReleaseRequest, SessionOpening, SessionRef,
};
use palisade_test_support::{Coordinator, Etcd, within};
use tonic::transport::Channel;

use crate::common::{LIMIT, rounds, spawn};
use crate::report::Row;

const SECRET: [u8; 32] = [7; 32];
const COPIES: usize = 8;

type Stub = LeaseServiceClient<Channel>;

async fn two_coordinators(etcd: &[String]) -> [(Coordinator, Stub); 2] {
    let one = async || {
        let coordinator = Coordinator::builder().etcd(etcd).start().await.unwrap();
        let stub = LeaseServiceClient::connect(coordinator.addr()).await;
        (coordinator, stub.unwrap())
    };
    [one().await, one().await]
}

async fn open(stub: &mut Stub) -> String {
    let opening = SessionOpening {
        open_id: "copies".to_owned(),
        secret: SECRET.to_vec(),
        ttl_ms: 60_000,
        ..SessionOpening::default()
    };
    let request = OpenSessionRequest {
        opening: Some(opening),
    };
    let answer = stub.open_session(request).await.unwrap().into_inner();
    answer.session_id
}

fn session(id: &str, epoch: u64) -> SessionRef {
    SessionRef {
        session_id: id.to_owned(),
        secret: SECRET.to_vec(),
        epoch,
    }
}

fn acquire(id: &str, epoch: u64, request: &str, attempt: u32) -> AcquireRequest {
    AcquireRequest {
        owner: Some(Owner::Session(session(id, epoch))),
        request_id: request.to_owned(),
        resource: "r".to_owned(),
        attempt,
        ..AcquireRequest::default()
    }
}

/// Sends a copy of it, many times at once, through both. What is granted is told.
async fn send_copies(stubs: &[Stub; 2], request: &AcquireRequest) -> Vec<i64> {
    let mut copies = Vec::new();
    for copy in 0..COPIES {
        let (mut stub, request) = (stubs[copy % 2].clone(), request.clone());
        copies.push(spawn(async move { stub.acquire(request).await }));
    }
    let mut tokens = Vec::new();
    for copy in copies {
        let answer = within("an answer to a copy", LIMIT, copy).await.unwrap();
        if let Ok(granted) = answer.unwrap() {
            tokens.push(granted.into_inner().lease.unwrap().token);
        }
    }
    tokens
}

/// How often the resource was granted, ever.
async fn grants(endpoints: &[String]) -> usize {
    let mut etcd = EtcdClient::connect(endpoints, None).await.unwrap();
    let key = "/palisade/v1/lease/r";
    let answer = etcd.get(key, None).await.unwrap();
    let now = answer.header().unwrap().revision();
    // What has ended is in the log, too, up to a mark.
    etcd.put("mark", "", None).await.unwrap();
    let options = WatchOptions::new()
        .with_start_revision(1)
        .with_range([0xff]);
    let mut stream = etcd.watch(key, Some(options)).await.unwrap();
    let mut count = 0;
    loop {
        let next = within("the log goes on", LIMIT, stream.message()).await;
        for event in next.unwrap().unwrap().unwrap().events() {
            let kv = event.kv().unwrap();
            if kv.mod_revision() > now {
                return count;
            }
            let is_grant = event.event_type() == EventType::Put;
            count += usize::from(is_grant && kv.key_str().unwrap() == key);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_a_request_are_one_request() {
    let etcd = Etcd::start().await.unwrap();
    let [(_one, first), (_other, second)] = two_coordinators(&etcd.endpoints()).await;
    let stubs = [first, second];
    let id = open(&mut stubs[0].clone()).await;
    let (mut epoch, mut operations, mut before) = (1, 0, 0);
    for round in 0..rounds(4, 100) {
        let request = format!("request-{round}");
        let first_try = acquire(&id, epoch, &request, 1);
        let tokens = send_copies(&stubs, &first_try).await;
        let token = *tokens.first().expect("one of them is granted");
        assert!(tokens.iter().all(|other| *other == token), "I4: {tokens:?}");
        assert!(token > before, "I3: {token} after {before}");
        before = token;

        // Tried again: the same. Released under the epoch of the second try, it stays so, however late the copies
        // of the first come.
        epoch += 1;
        let again = acquire(&id, epoch, &request, 2);
        let answer = stubs[1].clone().acquire(again).await.unwrap();
        assert_eq!(answer.into_inner().lease.unwrap().token, token, "I4");
        let release = ReleaseRequest {
            session: Some(session(&id, epoch)),
            resource: "r".to_owned(),
            hold: Some(Hold::RequestId(request.clone())),
            ..ReleaseRequest::default()
        };
        stubs[round % 2].clone().release(release).await.unwrap();
        let late = send_copies(&stubs, &first_try).await;
        assert!(late.is_empty(), "I4: late copies were granted {late:?}");
        operations += u64::try_from(2 * COPIES + 2).unwrap();
        assert_eq!(grants(&etcd.endpoints()).await, round + 1, "I4, I5");
    }
    Row {
        fault: "F12",
        test: "faults::copies::copies_of_a_request_are_one_request",
        operations,
        unknown: 0,
        violations: 0,
        recovery: Vec::new(),
    }
    .write();
}
