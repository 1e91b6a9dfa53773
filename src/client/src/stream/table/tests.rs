//! A session's table against a store, with streams that deliver late, in part or not at all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::attach_request::Message as Asked;
use palisade_api::v1::attach_response::Message as Told;
use palisade_api::v1::{self, OpenRequest, OpenRequestState, OpenRequestStatus, attach_release};
use palisade_api::{AttachRequest, AttachResponse, Refusal};
use proptest::prelude::*;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::super::request::{Ask, Giving, Granted, RequestKey, Slots, Stage};
use super::{News, Table};
use crate::clock::Moment;
use crate::error::ClientError;
use crate::lease::LeaseNews;
use crate::random::Random;

const RESOURCES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Op {
    Acquire {
        resource: usize,
        waits: bool,
    },
    /// Whoever asked stops waiting.
    Abandon(usize),
    Release(usize),
    Renew,
    /// The oldest message under way on the stream, the abandoned ones' included, reaches the store's side.
    Serve(usize),
    /// The oldest answer reaches the client.
    Hear,
    /// The next message is served and refused: done, or not.
    Refuse {
        done: bool,
    },
    Cut,
    /// Another stream is opened, beside the present one or in its place.
    Open,
    /// The client gives up on the opening, though it may be served later.
    OpeningLost,
    OpeningRefused,
    /// An operator takes a lease away.
    Revoke(usize),
    /// Another session takes the resource if it is free, or lets it go.
    Rival(usize),
    Time(u16),
}

fn op() -> impl Strategy<Value = Op> {
    let which = 0..usize::from(u16::MAX);
    prop_oneof![
        6 => (0..RESOURCES.len(), any::<bool>())
            .prop_map(|(resource, waits)| Op::Acquire { resource, waits }),
        2 => which.clone().prop_map(Op::Abandon),
        3 => which.clone().prop_map(Op::Release),
        1 => Just(Op::Renew),
        12 => which.prop_map(Op::Serve),
        12 => Just(Op::Hear),
        1 => any::<bool>().prop_map(|done| Op::Refuse { done }),
        1 => Just(Op::Cut),
        3 => Just(Op::Open),
        1 => Just(Op::OpeningLost),
        1 => Just(Op::OpeningRefused),
        1 => (0..RESOURCES.len()).prop_map(Op::Revoke),
        1 => (0..RESOURCES.len()).prop_map(Op::Rival),
        1 => (1..3000_u16).prop_map(Op::Time),
    ]
}

/// A stream as the network has it.
#[derive(Debug, Default)]
struct Link {
    epoch: u64,
    opens: Option<Vec<OpenRequest>>,
    up: VecDeque<AttachRequest>,
    down: VecDeque<AttachResponse>,
    /// Nobody hears what is answered here.
    abandoned: bool,
}

#[derive(Debug)]
struct Holder {
    /// None: another session's.
    key: Option<String>,
    token: i64,
}

/// The store, and the coordinators before it: a stream of an old epoch is not served.
#[derive(Debug, Default)]
struct Store {
    epoch: u64,
    held: BTreeMap<String, Holder>,
    /// Request, and what its acquire is answered by, if it was sent on the present stream.
    queue: BTreeMap<String, VecDeque<(String, Option<u64>)>>,
    token: i64,
    refuse: Option<bool>,
    /// Ended by the client's wish: asking again for one of these breaks I4.
    ended: BTreeSet<String>,
}

#[derive(Debug)]
struct Asker {
    key: RequestKey,
    answer: Option<oneshot::Receiver<Result<Granted, ClientError>>>,
    held: Option<(i64, Arc<LeaseNews>)>,
    seen_lost: bool,
    outcomes: u32,
}

struct World {
    now: Moment,
    table: Table,
    slots: Arc<Slots>,
    store: Store,
    links: Vec<Link>,
    current: Option<usize>,
    opening: Option<usize>,
    unknown_opening: bool,
    epoch: u64,
    askers: Vec<Asker>,
    released: Vec<oneshot::Receiver<Result<crate::release::Released, ClientError>>>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            now: Moment(Duration::from_secs(1000)),
            table: Table::new(CancellationToken::new(), Random::default()),
            slots: Arc::default(),
            store: Store::default(),
            links: vec![Link {
                epoch: 1,
                ..Link::default()
            }],
            current: Some(0),
            opening: None,
            unknown_opening: false,
            epoch: 1,
            askers: Vec::new(),
            released: Vec::new(),
        };
        world.store.epoch = 1;
        world.table.opened(world.now, Vec::new()).unwrap();
        world
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Acquire { resource, waits } => self.acquire(RESOURCES[resource], waits),
            Op::Abandon(which) => self.abandon(which),
            Op::Release(which) => self.release(which),
            Op::Renew => {
                if self.current.is_some() {
                    self.table.renew();
                }
            }
            Op::Serve(which) => {
                let busy: Vec<usize> = (0..self.links.len())
                    .filter(|link| !self.links[*link].up.is_empty())
                    .collect();
                if !busy.is_empty() {
                    self.serve(busy[which % busy.len()]);
                }
            }
            Op::Hear => self.hear(),
            Op::Refuse { done } => self.store.refuse = Some(done),
            Op::Cut => self.cut(),
            Op::Open => self.open(),
            Op::OpeningLost => self.opening_fails(true),
            Op::OpeningRefused => self.opening_fails(false),
            Op::Revoke(resource) => self.revoke(RESOURCES[resource]),
            Op::Rival(resource) => self.rival(RESOURCES[resource]),
            Op::Time(millis) => {
                self.now = self.now.after(Duration::from_millis(u64::from(millis)));
                self.table.tick(self.now);
            }
        }
        self.flush();
        self.look();
    }

    fn flush(&mut self) {
        let messages = std::mem::take(self.table.outbox());
        if let Some(current) = self.current {
            self.links[current].up.extend(messages);
        } else {
            assert!(messages.is_empty(), "sent to nobody: {messages:?}");
        }
    }

    fn acquire(&mut self, resource: &str, waits: bool) {
        let (reply, answer) = oneshot::channel();
        let wait = Duration::from_secs(if waits { 3600 } else { 0 });
        let key = RequestKey::random(&Random::default());
        let ask = Ask {
            key,
            resource: resource.parse().unwrap(),
            is_try: !waits,
            wait_end: self.now.after(wait),
            give_up_at: self.now.after(wait + Duration::from_secs(15)),
            lock_delay_ms: 0,
            metadata: Vec::new(),
            progress: None,
            reply,
            slot: self.slots.take().unwrap(),
        };
        self.table.acquire(self.now, ask);
        self.askers.push(Asker {
            key,
            answer: Some(answer),
            held: None,
            seen_lost: false,
            outcomes: 0,
        });
    }

    fn abandon(&mut self, which: usize) {
        let waiting: Vec<usize> = (0..self.askers.len())
            .filter(|asker| self.askers[*asker].answer.is_some())
            .collect();
        if let Some(asker) = waiting.get(which % waiting.len().max(1)) {
            let asker = &mut self.askers[*asker];
            asker.answer = None;
            self.table.cancel(asker.key);
        }
    }

    fn release(&mut self, which: usize) {
        let holding: Vec<usize> = (0..self.askers.len())
            .filter(|asker| self.askers[*asker].held.is_some())
            .collect();
        if let Some(asker) = holding.get(which % holding.len().max(1)) {
            let asker = &mut self.askers[*asker];
            let (_token, news) = asker.held.take().unwrap();
            let (reply, told) = oneshot::channel();
            self.released.push(told);
            self.table.release(Giving {
                key: asker.key,
                refused_by_fence: which.is_multiple_of(3).then(|| "7".parse().unwrap()),
                reply: Some(reply),
                tell_by: self.now.after(Duration::from_secs(15)),
                news,
            });
        }
    }

    /// What the client's users see. What was lost is never held again (I8).
    fn look(&mut self) {
        for asker in &mut self.askers {
            if let Some(answer) = &mut asker.answer {
                match answer.try_recv() {
                    Ok(outcome) => {
                        asker.outcomes += 1;
                        asker.answer = None;
                        asker.held = outcome
                            .ok()
                            .map(|granted| (granted.info.grant.token.as_i64(), granted.news));
                    }
                    Err(oneshot::error::TryRecvError::Closed) => panic!("no outcome"),
                    Err(oneshot::error::TryRecvError::Empty) => {}
                }
            }
            assert!(asker.outcomes <= 1);
            if let Some((_, news)) = &asker.held {
                assert!(!asker.seen_lost || news.loss().is_some(), "held after lost");
                asker.seen_lost |= news.loss().is_some();
            }
        }
    }

    fn cut(&mut self) {
        if let Some(current) = self.current.take() {
            self.links[current].abandoned = true;
            self.table.cut();
        }
    }

    fn open(&mut self) {
        if self.opening.is_some() {
            return;
        }
        self.epoch += 1;
        let open = AttachRequest {
            seq: 1,
            message: Some(Asked::Open(v1::AttachOpen::default())),
        };
        self.links.push(Link {
            epoch: self.epoch,
            opens: Some(self.table.begin_opening()),
            up: VecDeque::from([open]),
            ..Link::default()
        });
        self.opening = Some(self.links.len() - 1);
    }

    fn opening_fails(&mut self, may_be_served: bool) {
        let Some(opening) = self.opening else { return };
        let served = self.links[opening].up.is_empty();
        if served && !may_be_served {
            return;
        }
        self.opening = None;
        self.links[opening].abandoned = true;
        if !may_be_served {
            self.links[opening].up.clear();
        }
        self.unknown_opening |= may_be_served;
        if self.current.is_some() && !self.unknown_opening {
            self.table.opening_undone(self.now);
        }
    }

    fn hear(&mut self) {
        if let Some(opening) = self.opening
            && let Some(answer) = self.links[opening].down.pop_front()
        {
            let Some(Told::Opened(opened)) = answer.message else {
                panic!("{answer:?}");
            };
            let absent: Vec<_> = opened
                .requests
                .iter()
                .filter_map(|status| {
                    let absent = status.state() == OpenRequestState::Absent;
                    absent.then(|| status.request.clone().unwrap().request_id)
                })
                .collect();
            self.table.opened(self.now, opened.requests).unwrap();
            for asker in &self.askers {
                if let Some((_, news)) = &asker.held
                    && absent.contains(&asker.key.to_string())
                {
                    assert!(news.loss().is_some(), "held though it is absent");
                }
            }
            if let Some(before) = self.current.replace(opening) {
                self.links[before].abandoned = true;
            }
            self.opening = None;
            self.unknown_opening = false;
        } else if let Some(current) = self.current
            && let Some(answer) = self.links[current].down.pop_front()
        {
            let news = self.table.heard(self.now, answer).unwrap();
            assert!(!matches!(news, News::Ended(_)), "{news:?}");
        }
    }

    fn serve(&mut self, link: usize) {
        let Some(request) = self.links[link].up.pop_front() else {
            return;
        };
        let epoch = self.links[link].epoch;
        let message = request.message.unwrap();
        if let Asked::Open(_) = message {
            if epoch > self.store.epoch {
                self.store.epoch = epoch;
                for (_, asked) in self.store.queue.values_mut().flatten() {
                    *asked = None;
                }
                let named = self.links[link].opens.take().unwrap();
                self.give_back(&named);
                let requests = named.iter().map(|named| self.stands(named)).collect();
                let opened = v1::AttachOpened {
                    requests,
                    ..v1::AttachOpened::default()
                };
                self.tell(link, 1, Told::Opened(opened));
            }
            return;
        }
        if epoch != self.store.epoch {
            return;
        }
        match self.store.refuse.take() {
            None => self.serve_well(link, request.seq, message),
            Some(done) => {
                if done {
                    // Its answer is not heard.
                    let before = std::mem::take(&mut self.links[link].down);
                    self.serve_well(link, request.seq, message);
                    self.links[link].down = before;
                }
                let refusal = refusal("STORE_UNAVAILABLE", 14, done);
                self.tell(link, request.seq, refusal);
            }
        }
    }

    fn tell(&mut self, link: usize, seq: u64, message: Told) {
        self.links[link].down.push_back(AttachResponse {
            reply_to: seq,
            message: Some(message),
        });
    }

    fn current_link(&self) -> usize {
        let of_epoch = |link: &Link| link.epoch == self.store.epoch;
        self.links.iter().position(of_epoch).unwrap()
    }

    /// What is not named ends. Nothing that the client holds may be among it.
    fn give_back(&mut self, named: &[OpenRequest]) {
        let known = |key: &str| named.iter().any(|named| named.request_id == key);
        for queue in self.store.queue.values_mut() {
            queue.retain(|(key, _)| known(key));
        }
        let lost = self.store.held.iter().filter_map(|(resource, holder)| {
            let key = holder.key.clone().filter(|key| !known(key))?;
            Some((resource.clone(), key))
        });
        for (resource, key) in lost.collect::<Vec<_>>() {
            let of_client = self.table.requests.get(&RequestKey::parse(&key).unwrap());
            let holds = of_client.is_some_and(|held| matches!(held.stage, Stage::Held { .. }));
            assert!(!holds, "what the client holds was given back");
            self.store.held.remove(&resource);
            self.store.ended.insert(key);
            self.promote(&resource);
        }
    }

    fn stands(&self, named: &OpenRequest) -> OpenRequestStatus {
        let holder = self.store.held.get(&named.resource);
        let holder = holder.filter(|holder| holder.key.as_ref() == Some(&named.request_id));
        let queue = self.store.queue.get(&named.resource);
        let waits =
            queue.is_some_and(|queue| queue.iter().any(|(key, _)| *key == named.request_id));
        let state = match (holder, waits) {
            (Some(_), _) => OpenRequestState::Held,
            (None, true) => OpenRequestState::Queued,
            (None, false) => OpenRequestState::Absent,
        };
        OpenRequestStatus {
            request: Some(OpenRequest {
                token: holder.map_or(0, |holder| holder.token),
                ..named.clone()
            }),
            state: state.into(),
        }
    }

    fn grant(&mut self, link: usize, seq: Option<u64>, resource: &str, key: &str) {
        assert!(
            !self.store.ended.contains(key),
            "granted after its end (I4)"
        );
        let token = match self.store.held.get(resource) {
            Some(holder) => holder.token,
            None => {
                self.store.token += 1;
                self.store.token
            }
        };
        let holder = Holder {
            key: Some(key.to_owned()),
            token,
        };
        self.store.held.insert(resource.to_owned(), holder);
        let granted = v1::AttachGranted {
            lease: Some(palisade_api::Lease {
                resource: resource.to_owned(),
                token,
                holder: vec![1; 16],
                request_id: key.to_owned(),
                ..palisade_api::Lease::default()
            }),
            ..v1::AttachGranted::default()
        };
        if let Some(seq) = seq {
            self.tell(link, seq, Told::Granted(granted));
        }
    }

    fn promote(&mut self, resource: &str) {
        let queue = self.store.queue.get_mut(resource);
        if let Some((key, seq)) = queue.and_then(VecDeque::pop_front) {
            let link = self.current_link();
            self.grant(link, seq, resource, &key);
        }
    }

    fn serve_well(&mut self, link: usize, seq: u64, message: Asked) {
        match message {
            Asked::Renew(renew) => {
                self.give_back(&renew.open_requests);
                self.tell(link, seq, Told::Renewed(v1::AttachRenewed::default()));
                for named in renew.open_requests {
                    let absent = self.stands(&named).state() != OpenRequestState::Held;
                    if named.token > 0 && absent {
                        self.tell_lost(link, &named.resource, &named.request_id, named.token);
                    }
                }
            }
            Asked::Acquire(asked) => self.serve_acquire(link, seq, asked),
            Asked::Cancel(cancel) => {
                self.end(link, seq, &cancel.resource, Some(&cancel.request_id), 0);
            }
            Asked::Release(release) => match release.hold.unwrap() {
                attach_release::Hold::Token(token) => {
                    self.end(link, seq, &release.resource, None, token);
                }
                other @ attach_release::Hold::RequestId(_) => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn serve_acquire(&mut self, link: usize, seq: u64, asked: v1::AttachAcquire) {
        let (resource, key) = (asked.resource.as_str(), asked.request_id);
        match self.store.held.get(resource) {
            Some(holder) if holder.key.as_ref() == Some(&key) => {
                assert!(asked.attempt > 1, "asked twice as the first");
                self.grant(link, Some(seq), resource, &key);
            }
            None => self.grant(link, Some(seq), resource, &key),
            Some(Holder { key: Some(_), .. }) => {
                self.tell(link, seq, refusal("ALREADY_HELD", 9, false));
            }
            Some(_) if asked.wait_ms == 0 => {
                let mut held = refusal("LEASE_HELD", 9, false);
                if let Told::Refused(v1::AttachRefused {
                    refusal: Some(refusal),
                    ..
                }) = &mut held
                {
                    refusal.metadata.insert("resource".into(), resource.into());
                }
                self.tell(link, seq, held);
            }
            Some(_) => {
                let queue = self.store.queue.entry(resource.to_owned()).or_default();
                match queue.iter_mut().find(|(waiting, _)| *waiting == key) {
                    Some((_, answered)) => *answered = Some(seq),
                    None => queue.push_back((key.clone(), Some(seq))),
                }
                let queued = v1::AttachQueued {
                    request_id: key,
                    ..v1::AttachQueued::default()
                };
                self.tell(link, seq, Told::Queued(queued));
            }
        }
    }

    fn end(&mut self, link: usize, seq: u64, resource: &str, key: Option<&str>, token: i64) {
        if let Some(key) = key {
            self.store.ended.insert(key.to_owned());
            let queue = self.store.queue.entry(resource.to_owned()).or_default();
            if let Some(at) = queue.iter().position(|(waiting, _)| waiting == key) {
                let (_, asked) = queue.remove(at).unwrap();
                if let Some(asked) = asked {
                    self.tell(link, asked, refusal("REQUEST_CANCELLED", 10, false));
                }
            }
        }
        let ours = |holder: &Holder| {
            holder.key.is_some() && (holder.token == token || holder.key.as_deref() == key)
        };
        let found = self.store.held.get(resource).is_some_and(ours);
        let outcome = if found {
            let holder = self.store.held.remove(resource).unwrap();
            self.store.ended.extend(holder.key);
            v1::ReleaseOutcome::Released
        } else {
            v1::ReleaseOutcome::NotHeld
        };
        let released = v1::AttachReleased {
            outcome: outcome.into(),
            ..v1::AttachReleased::default()
        };
        self.tell(link, seq, Told::Released(released));
        if found {
            self.promote(resource);
        }
    }

    fn tell_lost(&mut self, link: usize, resource: &str, key: &str, token: i64) {
        let lost = v1::AttachLost {
            resource: resource.to_owned(),
            request_id: key.to_owned(),
            token,
            end: v1::LeaseEnd::Revoked.into(),
            ..v1::AttachLost::default()
        };
        self.tell(link, 0, Told::Lost(lost));
    }

    fn revoke(&mut self, resource: &str) {
        let own = |holder: &Holder| holder.key.is_some();
        if self.store.held.get(resource).is_some_and(own) {
            let holder = self.store.held.remove(resource).unwrap();
            let link = self.current_link();
            self.tell_lost(link, resource, &holder.key.unwrap(), holder.token);
            self.promote(resource);
        }
    }

    fn rival(&mut self, resource: &str) {
        match self.store.held.get(resource) {
            None => {
                self.store.token += 1;
                let token = self.store.token;
                let holder = Holder { key: None, token };
                self.store.held.insert(resource.to_owned(), holder);
            }
            Some(Holder { key: None, .. }) => {
                self.store.held.remove(resource);
                self.promote(resource);
            }
            Some(_) => {}
        }
    }

    /// Everything arrives, rivals let go, and users release what they wait for others with.
    fn settle(&mut self, renews: bool) {
        self.store.refuse = None;
        for resource in RESOURCES {
            if self
                .store
                .held
                .get(resource)
                .is_some_and(|held| held.key.is_none())
            {
                self.rival(resource);
            }
        }
        if self.opening.is_none() {
            self.step(&Op::Open);
        }
        for _round in 0..4 {
            if renews {
                self.step(&Op::Renew);
            }
            for _message in 0..4000 {
                let links = 0..self.links.len();
                for link in links {
                    while !self.links[link].up.is_empty() {
                        self.serve(link);
                    }
                }
                let heard = |world: &Self| {
                    let on = |link: Option<usize>| {
                        link.is_some_and(|link| !world.links[link].down.is_empty())
                    };
                    on(world.current) || on(world.opening)
                };
                if !heard(self) {
                    break;
                }
                self.step(&Op::Hear);
            }
            self.step(&Op::Time(2000));
        }
    }

    fn check(&mut self) {
        self.settle(false);
        let queues = self.store.queue.values().flatten().map(|(key, _)| key);
        let held = self
            .store
            .held
            .values()
            .filter_map(|holder| holder.key.as_ref());
        for key in queues.chain(held) {
            let known = self.table.requests.get(&RequestKey::parse(key).unwrap());
            assert!(known.is_some(), "given back by a renewal only: {key}");
        }
        self.settle(true);
        for asker in &self.askers {
            assert!(asker.answer.is_none(), "no outcome: {:?}", self.table);
        }
        for told in &mut self.released {
            assert!(told.try_recv().is_ok(), "a release without an outcome");
        }
        let believed: BTreeMap<String, i64> = self
            .askers
            .iter()
            .filter_map(|asker| {
                let (token, news) = asker.held.as_ref()?;
                news.loss()
                    .is_none()
                    .then(|| (asker.key.to_string(), *token))
            })
            .collect();
        let store = self.store.held.values();
        let held: BTreeMap<String, i64> = store
            .filter_map(|holder| holder.key.clone().map(|key| (key, holder.token)))
            .collect();
        assert_eq!(believed, held, "{:?}", self.table);
        assert!(self.store.queue.values().all(VecDeque::is_empty));
        assert_eq!(self.table.requests.len(), held.len(), "{:?}", self.table);
        let leftover = &self.table.in_flight;
        assert!(leftover.is_empty(), "{leftover:?}");
    }
}

fn refusal(reason: &str, code: i32, done: bool) -> Told {
    Told::Refused(v1::AttachRefused {
        refusal: Some(Refusal {
            code,
            reason: reason.to_owned(),
            metadata: [("mayHaveHappened".to_owned(), done.to_string())].into(),
            ..Refusal::default()
        }),
        ..v1::AttachRefused::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is cut, late, lost or refused: each request has one outcome, the client's leases are the
    /// store's in the end, none is given back that the client holds, and nothing is left over (I4, I5, I8).
    #[test]
    fn each_request_has_one_outcome_and_what_is_held_is_held(ops in prop::collection::vec(op(), 1..120)) {
        let mut world = World::new();
        for op in &ops {
            world.step(op);
        }
        world.check();
    }
}
