"""The local deadline (I8), against every schedule of sends, losses, delays, copies and looks."""

import random

import pytest

from palisade.clock import SECOND
from palisade.standing import Allowance, LostReason, Standing, State

MILLI = SECOND // 1000
MICRO = SECOND // 1_000_000
TTL = 15 * SECOND
ALLOWANCE = Allowance(drift_ppm=10_000, margin=1500 * MILLI)
# 15 s less 1 % and less the margin.
BELIEVED = 13_350 * MILLI


def opened_at(millis: int) -> Standing:
    return Standing.opened(ALLOWANCE, millis * MILLI, TTL)


def test_the_deadline_is_the_ttl_less_drift_and_margin_from_before_sending() -> None:
    standing = opened_at(1000)
    assert standing.deadline == 1000 * MILLI + BELIEVED
    assert standing.observe(14_349 * MILLI) is State.HELD
    assert standing.observe(14_350 * MILLI) is State.EXPIRED


def test_a_suspend_is_noticed_at_the_first_look_and_a_late_answer_revives_nothing() -> None:
    standing = opened_at(0)
    suspended = 60 * SECOND
    standing.renewed(suspended, suspended - MILLI, TTL)
    assert standing.observe(suspended) is State.EXPIRED
    standing.renewed(suspended, suspended, TTL)
    assert standing.observe(suspended) is State.EXPIRED
    assert standing.observe(0) is State.EXPIRED, "not even if a clock ran back"
    assert standing.reason is LostReason.EXPIRED


@pytest.mark.parametrize(
    ("now", "sent", "left", "deadline_from"),
    [
        pytest.param(9500, 5000, TTL, 8000, id="an earlier one, overtaken"),
        pytest.param(12_000, 8000, TTL, 8000, id="the same one again"),
        pytest.param(12_000, 11_000, SECOND, 8000, id="one with little left"),
        pytest.param(12_000, 11_000, TTL, 11_000, id="a later one"),
    ],
)
def test_answers_that_are_late_twice_or_overtaken(now: int, sent: int, left: int, deadline_from: int) -> None:
    standing = opened_at(0)
    standing.renewed(9000 * MILLI, 8000 * MILLI, TTL)
    standing.renewed(now * MILLI, sent * MILLI, left)
    assert standing.deadline == deadline_from * MILLI + BELIEVED


def test_renewals_that_fail_make_it_suspect_and_one_that_works_makes_it_held() -> None:
    standing = opened_at(0)
    standing.failing()
    assert standing.observe(5000 * MILLI) is State.SUSPECT
    standing.renewed(6000 * MILLI, 5500 * MILLI, TTL)
    assert standing.observe(6000 * MILLI) is State.HELD
    standing.failing()
    standing.renewed(6100 * MILLI, 5400 * MILLI, TTL)
    assert standing.observe(6100 * MILLI) is State.SUSPECT, "an old answer says nothing"
    assert standing.observe(5500 * MILLI + BELIEVED) is State.EXPIRED


def test_the_first_end_stays() -> None:
    standing = opened_at(0)
    standing.lost(10 * MILLI, LostReason.ENDED)
    standing.lost(11 * MILLI, LostReason.CLOSED)
    standing.renewed(12 * MILLI, 11 * MILLI, TTL)
    assert standing.observe(60 * SECOND) is State.LOST
    assert standing.reason is LostReason.ENDED

    standing = opened_at(0)
    standing.lost(60 * SECOND, LostReason.CLOSED)
    assert standing.observe(60 * SECOND) is State.EXPIRED


def test_a_margin_above_the_ttl_leaves_nothing() -> None:
    standing = Standing.opened(Allowance(10_000, 60 * SECOND), SECOND, TTL)
    assert standing.observe(SECOND) is State.EXPIRED


class SkewedClock:
    """Real time to the client's clock, whose rate changes each second within the drift allowed."""

    def __init__(self, chance: random.Random) -> None:
        self.origin = chance.randrange(10**15)
        steady = chance.random() < 0.5
        self.rates = [990_000] if steady else [chance.randint(990_000, 1_010_000) for _ in range(20)]

    def now(self, real: int) -> int:
        seconds, rest = divmod(real, SECOND)
        whole = sum(self.rates[second % len(self.rates)] for second in range(seconds)) * 1000
        return self.origin + whole + rest * self.rates[seconds % len(self.rates)] // 1_000_000


def delay(chance: random.Random) -> int:
    return chance.randrange(chance.choice([2_000, 500_000, 20_000_000])) * MICRO


def maybe(chance: random.Random, share: float) -> int | None:
    return delay(chance) if chance.random() < share else None


def simulate(chance: random.Random) -> tuple[bool, bool]:
    """One history; whether a look met it held, and whether one met it over."""
    clock = SkewedClock(chance)
    to_store, back = delay(chance) + delay(chance), delay(chance)
    expires = to_store + TTL
    begin = to_store + back
    # Only what the rounding of the simulated clock takes, or the default: drift alone must do.
    allowance = Allowance(10_000, chance.choice([10 * MICRO, ALLOWANCE.margin]))
    standing = Standing.opened(allowance, clock.now(0), TTL)
    # (when, tie, kind, sent, ttl_left, answer delay, copy delay)
    events: list[tuple[int, int, str, int, int, int | None, int | None]] = []
    sent = begin
    for tie in range(chance.randrange(12)):
        sent += chance.randrange(chance.choice([6, 25]) * SECOND)
        if chance.random() < 0.5:
            events.append((sent + MILLI, tie, "failed", sent, 0, None, None))
        to_coordinator = maybe(chance, 0.85)
        if to_coordinator is None:
            continue
        relayed = sent + to_coordinator
        stored = relayed + delay(chance)
        told = stored if chance.random() < 0.5 else relayed
        left = max(TTL - (told - relayed), 0)
        events.append((stored, tie, "stored", sent, left, maybe(chance, 0.85), maybe(chance, 0.2)))
    events += [(begin + chance.randrange(120 * SECOND), 0, "look", 0, 0, None, None) for _ in range(30)]
    ended = met_held = False
    while events:
        events.sort()
        when, tie, kind, sent, left, answer, copy = events.pop(0)
        now = clock.now(when)
        if when > expires and not ended:
            # The sharpest look there is, without looking: a look would be remembered.
            assert clock.now(expires) >= standing.deadline or standing.reason, "held at the very end"
        if kind == "look":
            held = standing.observe(now).is_held
            assert not (held and when >= expires), f"held at {when}, and granted elsewhere from {expires} on"
            assert not (held and ended), f"held again at {when}"
            ended = ended or not held
            met_held = met_held or held
        elif kind == "failed":
            standing.failing()
        elif kind == "answered":
            standing.renewed(now, clock.now(sent), left // MILLI * MILLI)
        elif when < expires:
            expires = max(expires, when + TTL)
            if answer is not None:
                events.append((when + answer, tie, "answered", sent, left, None, None))
                if copy is not None:
                    events.append((when + answer + copy, tie, "answered", sent, left, None, None))
    return met_held, ended


def test_it_never_says_held_when_the_server_may_have_granted_elsewhere() -> None:
    met = [simulate(random.Random(seed)) for seed in range(1500)]
    assert sum(held for held, _ in met) > 100, "it is held often enough to prove something"
    assert sum(ended for _, ended in met) > 1000
