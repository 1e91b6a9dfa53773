"""Sessions: one process's liveness at the coordinators."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

from .calls import CHECK_TOKEN, CLOSE_SESSION, OPEN_SESSION, RELEASE, RENEW_SESSION, Shared, Tries, Try, log
from .clock import SECOND, milliseconds, nanoseconds
from .credentials import Credentials, Epochs, jittered, new_id, new_secret
from .errors import Denied, Forked, Invalid, Lost, NotServed, PalisadeError
from .hold import Hold
from .standing import Allowance, LostReason, Standing, State
from .status import Failure, Verdict
from .v1 import lease_service_pb2 as messages
from .v1.session_pb2 import OpenRequest, SessionOpening

DEFAULT_DRIFT_PPM = 10_000
"""How much faster than ours the coordinators' clocks may run: far more than any clock that is not broken."""
MAX_DRIFT_PPM = 100_000
"""A drift of more than a tenth is a broken clock."""
LEAST_MARGIN = SECOND // 4
"""The least default margin: what it takes to notice and to stop..."""
MARGIN_SHARE = 10
"""...and its share of the TTL, where that is more."""
RENEWALS_PER_TTL = 3
"""A renewal is due a third of the TTL after the last one was sent: two may fail before it is late..."""
INTERVAL_PERMILLE = 850
"""...or up to this much earlier, in thousandths, so that sessions spread."""
TRIES_PER_TTL = 6
"""One try takes at most this share of the TTL, so that other endpoints are tried before the deadline."""
FIRST_PAUSES_PER_TTL = 50
"""The first pause between tries is this share of the TTL; each further one is twice as long..."""
LONGEST_PAUSES_PER_TTL = 10
"""...up to this share, so that a coordinator that is back is found before the deadline, and up to 1 s."""
LOOKS_PER_RENEWAL = 16
"""So many leases of a session are looked after with each renewal, in turns: looking must not delay renewing."""

T = TypeVar("T")


class Core:
    """What a session's handles, its leases and its thread share."""

    def __init__(self, shared: Shared, credentials: Credentials, epochs: Epochs, ttl: int, standing: Standing) -> None:
        self.shared = shared
        self.credentials = credentials
        self.epochs = epochs
        self.ttl = ttl
        # Reentrant: a signal's handler may look at a lease while its thread does.
        self._lock = threading.RLock()
        self._standing = standing
        self._holds: dict[str, Hold] = {}
        self._looked_at: deque[str] = deque()
        self._may_look = True
        self._to_give_back: deque[tuple[str, str, int]] = deque()
        # Requests that somebody asks for. An id is never used again: what is not known here never will be.
        self._asked: set[str] = set()
        self.wake = threading.Event()
        # Set by a finalizer, which may run anywhere and must take no lock.
        self.abandoned = False

    def _change(self, change: Callable[[Standing, int], T]) -> tuple[State, T]:
        """Changes the standing, looks at it, and tells what is new."""
        with self._lock:
            now = self.shared.clock.now()
            given = change(self._standing, now)
            state = self._standing.observe(now)
            if state.is_held:
                return state, given
            reason = self._standing.reason or LostReason.EXPIRED
            holds = list(self._holds.values())
        # Each time: whoever was to tell them may have been interrupted.
        for hold in holds:
            hold.lose(reason)
        self.wake.set()
        return state, given

    def state(self) -> State:
        """How it stands, by the clock and not by a timer (I8)."""
        if self.shared.forked:
            return State.LOST
        return self._change(lambda standing, now: None)[0]

    def reason(self) -> LostReason | None:
        """Why it has ended, if it has."""
        if self.shared.forked:
            return LostReason.FORKED
        return None if self.state().is_held else self._standing.reason

    def watch(self) -> None:
        """Raises `Lost` once the session has ended."""
        reason = self.reason()
        if reason is not None:
            raise Lost(reason)

    def renewed(self, sent: int, ttl_left: int) -> None:
        self._change(lambda standing, now: standing.renewed(now, sent, ttl_left))

    def failing(self) -> None:
        self._change(lambda standing, now: standing.failing())

    def lose(self, reason: LostReason) -> bool:
        """Ends it, unless it has ended before; whether it was this that ended it."""

        def end(standing: Standing, now: int) -> bool:
            was_held = standing.observe(now).is_held
            standing.lost(now, reason)
            return was_held

        return self._change(end)[1]

    @property
    def deadline(self) -> int:
        return self._standing.deadline

    @property
    def renewed_at(self) -> int:
        return self._standing.renewed_at

    def time_left(self) -> int:
        return max(self.deadline - self.shared.clock.now(), 0) if self.state().is_held else 0

    def begin(self, request_id: str) -> None:
        """Before a request is sent."""
        with self._lock:
            self._asked.add(request_id)

    def end(self, request_id: str) -> None:
        """It is answered and taken in, or given up and given back."""
        with self._lock:
            self._asked.discard(request_id)

    def add(self, hold: Hold) -> None:
        """Takes a hold in, or raises `Lost` if the session has ended meanwhile."""
        with self._lock:
            self.watch()
            self._holds[hold.request_id] = hold
            self._looked_at.append(hold.request_id)

    def remove(self, hold: Hold) -> None:
        with self._lock:
            self._holds.pop(hold.request_id, None)

    def give_back(self, resource: str, request_id: str, epoch: int) -> None:
        """Has the session's thread give back a request that may be granted without anybody knowing (I5)."""
        self._to_give_back.append((resource, request_id, epoch))
        self.wake.set()

    def close_soon(self) -> None:
        """Has the session's thread close it at the coordinator."""
        self.abandoned = True
        self.wake.set()

    def release(self, resource: str, *, token: int = 0, fence: int = 0) -> None:
        """Releases the hold with this token."""

        def message(this: Try) -> messages.ReleaseRequest:
            session = self.credentials.at(this.epoch)
            return messages.ReleaseRequest(session=session, resource=resource, token=token, refused_by_fence=fence)

        self.shared.call(RELEASE, Tries(self.shared, self.epochs), message)

    def close(self) -> None:
        """Closes the session at the coordinator. One that has ended is closed."""

        def message(this: Try) -> messages.CloseSessionRequest:
            return messages.CloseSessionRequest(session=self.credentials.at(this.epoch))

        with contextlib.suppress(Lost):
            self.shared.call(CLOSE_SESSION, Tries(self.shared, self.epochs), message)

    # What the session's thread does.

    def keep(self) -> None:
        """Renews until the session has ended, and notices its deadline."""
        due = self.renewed_at + self._interval()
        pause = 0
        while self.state().is_held and not self.abandoned:
            now = self.shared.clock.now()
            self.shared.clock.wait(self.wake, max(min(due, self.deadline, now + SECOND // 4) - now, 0))
            self.wake.clear()
            try:
                if self._to_give_back and self._give_back_one() and self._to_give_back:
                    self.wake.set()
                if self.shared.clock.now() < due:
                    continue
                if self._renew():
                    due, pause = self.renewed_at + self._interval(), 0
                    self._look_after_holds()
                else:
                    pause = self._next_pause(pause)
                    due = self.shared.clock.now() + jittered(pause, 500)
            except Lost:
                pass
            except Exception:
                # A fault of ours must not end the thread that notices the deadline.
                log.exception("the renewal of a session failed unforeseen")
                due = self.shared.clock.now() + SECOND
        # One that expired here may still stand there, and nobody else will end it.
        if self.lose(LostReason.CLOSED) or self.abandoned or self.state() is State.EXPIRED:
            try:
                self.close()
            except PalisadeError as error:
                log.debug("session not closed; it ends by its TTL: %s", error)

    def _interval(self) -> int:
        return jittered(self.ttl // RENEWALS_PER_TTL, INTERVAL_PERMILLE)

    def _next_pause(self, before: int) -> int:
        longest = min(self.ttl // LONGEST_PAUSES_PER_TTL, SECOND)
        return min(max(before * 2, self.ttl // FIRST_PAUSES_PER_TTL), longest)

    @property
    def _try_limit(self) -> int:
        return min(self.shared.call_timeout, self.ttl // TRIES_PER_TTL)

    def _renew(self) -> bool:
        """Renews once.

        Each try is a new renewal and no retry: it grants nothing, so a delayed copy of an earlier one does no harm, and
        a larger epoch would only disturb the session's other calls.
        """
        epoch = self.epochs.current
        asked = messages.RenewSessionRequest(session=self.credentials.at(epoch), list_open_requests=True)
        try:
            answer = self.shared.try_once(RENEW_SESSION, asked, self._try_limit, watch=self.watch)
        except Failure as failure:
            if isinstance(failure.error, Lost):
                self.lose(failure.error.reason)
                return True
            if failure.verdict is Verdict.EPOCH_STALE:
                self.epochs.after_stale(epoch, failure.stored_epoch)
                return False
            level = log.warning if failure.verdict is Verdict.FINAL else log.debug
            level("session not renewed: %s", failure.error)
            self.failing()
            return False
        self.renewed(answer.sent, min(answer.body.ttl_left_ms * 1_000_000, self.ttl))
        self._give_back_unknown(answer.body.open_requests)
        return True

    def _give_back_unknown(self, told: Iterable[OpenRequest]) -> None:
        """What the session has and nobody knows of: after a restore of the store, what was released before it."""
        with self._lock:
            known = {*self._asked, *self._holds, *(request_id for _, request_id, _ in self._to_give_back)}
        for one in told:
            if one.request_id not in known:
                self.give_back(one.resource, one.request_id, self.epochs.current)

    def _look_after_holds(self) -> None:
        """Asks whether the leases are the session's still: a renewal does not say so of one that was revoked."""
        for _turn in range(min(LOOKS_PER_RENEWAL, len(self._looked_at))):
            with self._lock:
                hold = self._holds.get(self._looked_at[0])
                if hold is None:
                    self._looked_at.popleft()
                    continue
                self._looked_at.rotate(-1)
            if not self._may_look:
                return
            asked = messages.CheckTokenRequest(resource=hold.grant.resource, token=hold.grant.token)
            try:
                told = self.shared.try_once(CHECK_TOKEN, asked, self._try_limit, watch=self.watch).body
            except Failure as failure:
                # Who may acquire need not be allowed to read.
                self._may_look = not isinstance(failure.error, Denied | NotServed)
                return
            # An answer from before the grant proves nothing.
            if told.state != messages.TOKEN_STATE_CURRENT and told.revision >= hold.granted_revision:
                self.remove(hold)
                hold.lose(LostReason.GONE)

    def _give_back_one(self) -> bool:
        """In turns with renewing; what is left when the session ends, ends with it. Whether one is dealt with."""
        resource, request_id, above = self._to_give_back[0]
        epoch = self.epochs.above(above)
        asked = messages.ReleaseRequest(session=self.credentials.at(epoch), resource=resource, request_id=request_id)
        try:
            self.shared.try_once(RELEASE, asked, self._try_limit, watch=self.watch)
        except Failure as failure:
            if isinstance(failure.error, Lost):
                self.lose(failure.error.reason)
            if failure.verdict is Verdict.EPOCH_STALE:
                epoch = self.epochs.after_stale(epoch, failure.stored_epoch)
            if failure.verdict is not Verdict.FINAL:
                # With a new epoch each time: a copy of this one may still be under way.
                self._to_give_back[0] = (resource, request_id, epoch)
                return False
            log.debug("nothing to give back: %s", failure.error)
        self._to_give_back.popleft()
        return True


class Owner:
    """Held by a session's handles and its leases: when the last one goes the session is closed."""

    def __init__(self, core: Core) -> None:
        self.core = core
        # At exit nothing is sent any more: the session ends by its TTL.
        weakref.finalize(self, setattr, core, "abandoned", True).atexit = False


def opened(shared: Shared, *, ttl: float, label: str, drift_ppm: int, margin: float | None) -> Owner:
    """Opens a session and starts the thread that renews it."""
    if not 0 <= drift_ppm <= MAX_DRIFT_PPM:
        raise Invalid("drift_ppm", f"0 to {MAX_DRIFT_PPM}", str(drift_ppm))
    if not 0 <= ttl < 1e6:
        raise Invalid("ttl", "seconds, 0 for the coordinator's default", str(ttl))
    epochs = Epochs()
    ttl_ms = milliseconds(nanoseconds(ttl))
    opening = SessionOpening(open_id=new_id(), secret=new_secret(), ttl_ms=ttl_ms, label=label)

    def message(this: Try) -> messages.OpenSessionRequest:
        opening.epoch = this.epoch
        return messages.OpenSessionRequest(opening=opening)

    answer = shared.call(OPEN_SESSION, Tries(shared, epochs), message)
    granted = answer.body.ttl_ms * 1_000_000
    spare = max(LEAST_MARGIN, granted // MARGIN_SHARE) if margin is None else nanoseconds(margin)
    standing = Standing.opened(
        Allowance(drift_ppm, spare), answer.sent, min(answer.body.ttl_left_ms * 1_000_000, granted)
    )
    credentials = Credentials(answer.body.session_id, opening.secret)
    core = Core(shared, credentials, epochs, granted, standing)
    owner = Owner(core)
    threading.Thread(target=core.keep, name=f"palisade-{credentials.session_id}", daemon=True).start()
    if not 0 <= spare <= granted // 2:
        core.close_soon()
        raise Invalid("margin", f"0 to {granted / 2 / SECOND:g} s, half of the TTL granted", f"{margin} s")
    return owner


def closed(core: Core) -> None:
    """Closes a session here at once, and at the coordinator unless it is not ours to close any more."""
    if core.shared.forked:
        return
    expired = core.state() is State.EXPIRED
    if core.lose(LostReason.CLOSED) or expired:
        core.close()


def closed_quietly(owner: Owner) -> None:
    """As `closed`, at the end of a block whose own error, if any, is what counts."""
    try:
        closed(owner.core)
    except Forked:
        pass
    except PalisadeError as error:
        log.warning("session not closed; it ends by its TTL: %s", error)
