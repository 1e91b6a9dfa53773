use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::{Allowance, LostReason, SessionState, Standing};
use crate::clock::Moment;

const TTL: Duration = Duration::from_secs(15);
const ALLOWANCE: Allowance = Allowance {
    drift_ppm: 10_000,
    margin: Duration::from_millis(1500),
};
/// 15 s less 1 % and less the margin.
const BELIEVED: Duration = Duration::from_millis(13_350);

fn at(millis: u64) -> Moment {
    Moment(Duration::from_millis(millis))
}

fn opened_at(millis: u64) -> Standing {
    Standing::opened(ALLOWANCE, at(millis), TTL)
}

#[test]
fn the_deadline_is_the_ttl_less_drift_and_margin_from_before_sending() {
    let mut standing = opened_at(1000);
    assert_eq!(standing.deadline(), at(1000).after(BELIEVED));
    assert_eq!(standing.observe(at(14_349)), SessionState::Held);
    assert_eq!(standing.observe(at(14_350)), SessionState::Expired);
}

#[test]
fn a_suspend_is_noticed_at_the_first_look_and_a_late_answer_revives_nothing() {
    let mut standing = opened_at(0);
    let suspended = at(60_000);
    standing.renewed(suspended, at(59_999), TTL);
    assert_eq!(standing.observe(suspended), SessionState::Expired);
    standing.renewed(suspended, suspended, TTL);
    assert_eq!(standing.observe(suspended), SessionState::Expired);
    assert_eq!(
        standing.observe(at(0)),
        SessionState::Expired,
        "not even if a clock ran back"
    );
}

#[test]
fn answers_that_are_late_twice_or_overtaken_move_the_deadline_neither_back_nor_too_far() {
    let mut standing = opened_at(0);
    standing.renewed(at(9000), at(8000), TTL);
    assert_eq!(standing.deadline(), at(8000).after(BELIEVED));
    standing.renewed(at(9500), at(5000), TTL);
    assert_eq!(
        standing.deadline(),
        at(8000).after(BELIEVED),
        "an earlier one, overtaken"
    );
    standing.renewed(at(12_000), at(8000), TTL);
    assert_eq!(
        standing.deadline(),
        at(8000).after(BELIEVED),
        "the same one again"
    );
    standing.renewed(at(12_000), at(11_000), Duration::from_secs(1));
    assert_eq!(
        standing.deadline(),
        at(8000).after(BELIEVED),
        "one with little left"
    );
}

#[test]
fn renewals_that_fail_make_it_suspect_and_one_that_works_makes_it_held() {
    let mut standing = opened_at(0);
    standing.failing();
    assert_eq!(standing.observe(at(5000)), SessionState::Suspect);
    standing.renewed(at(6000), at(5500), TTL);
    assert_eq!(standing.observe(at(6000)), SessionState::Held);
    standing.failing();
    standing.renewed(at(6100), at(5400), TTL);
    assert_eq!(
        standing.observe(at(6100)),
        SessionState::Suspect,
        "an old answer says nothing"
    );
    assert_eq!(
        standing.observe(at(5500).after(BELIEVED)),
        SessionState::Expired
    );
}

#[test]
fn the_first_end_stays() {
    let mut standing = opened_at(0);
    standing.lost(at(10), LostReason::Ended);
    standing.lost(at(11), LostReason::Closed);
    standing.renewed(at(12), at(11), TTL);
    assert_eq!(
        standing.observe(at(60_000)),
        SessionState::Lost(LostReason::Ended)
    );

    let mut standing = opened_at(0);
    standing.lost(at(60_000), LostReason::Closed);
    assert_eq!(standing.observe(at(60_000)), SessionState::Expired);
}

#[test]
fn a_margin_above_the_ttl_leaves_nothing() {
    let allowance = Allowance {
        margin: Duration::from_secs(60),
        ..ALLOWANCE
    };
    let mut standing = Standing::opened(allowance, at(1000), TTL);
    assert_eq!(standing.observe(at(1000)), SessionState::Expired);
}

/// One renewal of the simulation. Times are microseconds of real time, which is the server's.
#[derive(Debug, Clone)]
struct Renewal {
    /// After the one before.
    pause: u64,
    /// From the client to the coordinator, on to the store, and back. None: lost there.
    to_coordinator: Option<u64>,
    to_store: u64,
    answer: Option<u64>,
    /// How long after the answer a copy of it comes.
    copy: Option<u64>,
    /// Whether the answer tells what was left when it was sent, or when the renewal was.
    told_late: bool,
    fails: bool,
}

fn delay() -> impl Strategy<Value = u64> {
    prop_oneof![0..2_000_u64, 0..500_000_u64, 0..20_000_000_u64]
}

fn renewal() -> impl Strategy<Value = Renewal> {
    (
        prop_oneof![0..6_000_000_u64, 0..25_000_000_u64],
        prop::option::weighted(0.85, delay()),
        delay(),
        prop::option::weighted(0.85, delay()),
        prop::option::weighted(0.2, delay()),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(pause, to_coordinator, to_store, answer, copy, told_late, fails)| Renewal {
                pause,
                to_coordinator,
                to_store,
                answer,
                copy,
                told_late,
                fails,
            },
        )
}

/// Real time to the client's clock, whose rate changes each second within the drift allowed.
#[derive(Debug, Clone)]
struct SkewedClock {
    origin: u64,
    rates_ppm: Vec<u32>,
}

impl SkewedClock {
    fn moment(&self, real: u64) -> Moment {
        const SECOND: u64 = 1_000_000;
        let rate = |second: u64| {
            let index = usize::try_from(second).unwrap() % self.rates_ppm.len();
            u64::from(self.rates_ppm[index])
        };
        let whole: u64 = (0..real / SECOND).map(rate).sum();
        let rest = (real % SECOND) * rate(real / SECOND) / SECOND;
        Moment(Duration::from_micros(self.origin + whole + rest))
    }
}

fn clock() -> impl Strategy<Value = SkewedClock> {
    let steady_slow = Just(vec![990_000]);
    let changing = prop::collection::vec(990_000..=1_010_000_u32, 1..20);
    (0..1_000_000_000_u64, prop_oneof![steady_slow, changing])
        .prop_map(|(origin, rates_ppm)| SkewedClock { origin, rates_ppm })
}

/// The default, or only what the rounding of the simulated clock takes, so that drift alone must do.
fn margin() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(ALLOWANCE.margin), Just(Duration::from_micros(10))]
}

#[derive(Debug, Clone, Copy)]
enum Event {
    AtStore {
        answer: Option<(u64, u64)>,
        copy: Option<u64>,
        sent: u64,
    },
    Answered {
        sent: u64,
        left: u64,
    },
    Failed,
}

/// The store's view: when the session ends, and for ever.
#[derive(Debug)]
struct Server {
    expires: u64,
}

impl Server {
    /// Whether the store may have granted the session's resources to others.
    fn may_have_granted(&self, now: u64) -> bool {
        now >= self.expires
    }
}

const TTL_MICROS: u64 = 15_000_000;

fn schedule(renewals: &[Renewal]) -> BTreeMap<(u64, usize), Event> {
    let mut events = BTreeMap::new();
    let mut sent = 0;
    for (index, renewal) in renewals.iter().enumerate() {
        sent += renewal.pause;
        if renewal.fails {
            events.insert((sent + 1000, 4 * index), Event::Failed);
        }
        let Some(to_coordinator) = renewal.to_coordinator else {
            continue;
        };
        let relayed = sent + to_coordinator;
        let stored = relayed + renewal.to_store;
        let answer = renewal.answer.map(|delay| {
            let told = if renewal.told_late { stored } else { relayed };
            (stored + delay, TTL_MICROS.saturating_sub(told - relayed))
        });
        let copy = renewal.copy;
        events.insert(
            (stored, 4 * index + 1),
            Event::AtStore { answer, copy, sent },
        );
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// I8, against every schedule of sends, losses, delays, copies and looks.
    #[test]
    fn it_never_says_held_when_the_server_may_have_granted_elsewhere(
        opening in (delay(), delay(), delay()),
        renewals in prop::collection::vec(renewal(), 0..12),
        mut looks in prop::collection::vec(0..120_000_000_u64, 1..40),
        clock in clock(),
        margin in margin(),
    ) {
        let (to_coordinator, to_store, back) = opening;
        let mut server = Server { expires: to_coordinator + to_store + TTL_MICROS };
        let begin = to_coordinator + to_store + back;
        let opened = clock.moment(0);
        let allowance = Allowance { margin, ..ALLOWANCE };
        let mut standing = Standing::opened(allowance, opened, TTL);
        let mut events: BTreeMap<(u64, usize), Event> = schedule(&renewals)
            .into_iter()
            .map(|((when, index), event)| ((when + begin, index), shifted(event, begin)))
            .collect();
        looks.sort_unstable();
        let mut looks = looks.into_iter().map(|look| look + begin).peekable();
        let mut ended = false;
        loop {
            let event = events.first_key_value().map(|((when, _), _)| *when);
            if event.is_none_or(|when| when > server.expires) {
                // The sharpest look there is, without looking: a look would be remembered.
                let would_hold = clock.moment(server.expires) < standing.deadline;
                prop_assert!(standing.ended.is_some() || !would_hold, "held at the very end");
            }
            match (event, looks.peek().copied()) {
                (None, None) => break,
                (Some(when), look) if look.is_none_or(|look| when <= look) => {
                    let ((when, index), event) = events.pop_first().unwrap();
                    let more = apply(&mut server, &mut standing, &clock, when, event);
                    events.extend(more.into_iter().map(|(at, event)| ((at, index + 1), event)));
                }
                (_, Some(look)) => {
                    looks.next();
                    let held = standing.observe(clock.moment(look)).is_held();
                    prop_assert!(!(held && server.may_have_granted(look)), "held at {look}");
                    prop_assert!(!(held && ended), "held again at {look}");
                    ended |= !held;
                }
                (Some(_), None) => unreachable!("taken above"),
            }
        }
    }
}

fn shifted(event: Event, by: u64) -> Event {
    match event {
        Event::AtStore { answer, copy, sent } => Event::AtStore {
            answer: answer.map(|(when, left)| (when + by, left)),
            copy,
            sent: sent + by,
        },
        Event::Answered { sent, left } => Event::Answered {
            sent: sent + by,
            left,
        },
        Event::Failed => Event::Failed,
    }
}

fn apply(
    server: &mut Server,
    standing: &mut Standing,
    clock: &SkewedClock,
    now: u64,
    event: Event,
) -> Vec<(u64, Event)> {
    match event {
        Event::AtStore { answer, copy, sent } => {
            if server.may_have_granted(now) {
                return Vec::new();
            }
            server.expires = server.expires.max(now + TTL_MICROS);
            let Some((when, left)) = answer else {
                return Vec::new();
            };
            let answered = Event::Answered { sent, left };
            let copy = copy.map(|delay| (when + delay, answered));
            std::iter::once((when, answered)).chain(copy).collect()
        }
        Event::Answered { sent, left } => {
            let left = Duration::from_millis(left / 1000);
            standing.renewed(clock.moment(now), clock.moment(sent), left);
            Vec::new()
        }
        Event::Failed => {
            standing.failing();
            Vec::new()
        }
    }
}
