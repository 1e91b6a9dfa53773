"""Leases: how they are asked for, held and given back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from .calls import ACQUIRE, Tries, Try, log
from .clock import SECOND, milliseconds, nanoseconds
from .credentials import jittered, new_id
from .errors import Held, Invalid, Lost, PalisadeError, Stale, Unexpected, WaitExpired
from .hold import Grant, Hold
from .session import Core, Owner, closed, closed_quietly
from .standing import LostReason, State
from .status import Failure
from .v1 import lease_service_pb2 as messages

LONGEST_CALL = 30 * SECOND
"""A call that waits longer is ended and sent again, so that no call lives for hours; its place in the queue stays..."""
LONGEST_CALL_PERMILLE = 800
"""...down to this many thousandths of it, so that calls do not end all at once."""

OnLost = Callable[[LostReason], object]


class Lease:
    """The right of this process to one resource, with its fencing token.

    It is renewed by a thread until it is released. The lease is politeness, the guard is the safety: between a look at
    the lease and a write anything may happen.
    """

    def __init__(self, owner: Owner, hold: Hold, *, owns_session: bool) -> None:
        self._owner = owner
        self._hold = hold
        self._owns_session = owns_session

    def __repr__(self) -> str:
        return f"<Lease {self.resource}#{self.token} {self.state.value}>"

    @property
    def grant(self) -> Grant:
        """What to show a guard, if it holds at this moment; raises `Lost` past the local deadline, and for ever after.

        Ask for it at the start of each piece of work: a grant kept in a variable does not know that it is over, though
        the guard does.
        """
        self.raise_if_lost()
        return self._hold.grant

    @property
    def token(self) -> int:
        """The fencing token, also after the lease is lost: for logs and messages."""
        return self._hold.grant.token

    @property
    def holder(self) -> str:
        """The id of this hold: 32 hexadecimal digits."""
        return self._hold.grant.holder

    @property
    def resource(self) -> str:
        """What is held."""
        return self._hold.grant.resource

    @property
    def state(self) -> State:
        """How it stands now, by the clock and not by a timer (I8)."""
        match self.lost_reason:
            case None:
                return self._owner.core.state()
            case LostReason.EXPIRED:
                return State.EXPIRED
        return State.LOST

    @property
    def lost_reason(self) -> LostReason | None:
        """Why it is lost, the first reason of several; `None` while it holds."""
        reason = self._owner.core.reason()
        return reason if reason is LostReason.FORKED else self._hold.reason or reason

    @property
    def lost(self) -> threading.Event:
        """Set once the lease is lost or begins to be released: stop.

        A timer sets it, up to a quarter of a second late after a suspend; `grant` and `state` are never late.
        """
        return self._hold.lost

    def raise_if_lost(self) -> None:
        """Raises `Lost` unless the lease holds at this moment."""
        reason = self.lost_reason
        if reason is not None:
            raise Lost(reason)

    @property
    def time_left(self) -> float:
        """Seconds to the local deadline, which moves with each renewal; 0 once the lease is lost."""
        return self._owner.core.time_left() / SECOND if self.state.is_held else 0.0

    def release(self, *, refused_by_fence: int = 0) -> None:
        """Releases the lease, so that the next waiter gets it at once. The work must have stopped before.

        `refused_by_fence` is the fence of a `Stale` that is the cause of it: the next token will be above it. Raises
        `Lost` if there is nothing left to release, `Unavailable` if it ends by its TTL only, `FenceAhead`.
        """
        core = self._owner.core
        self.raise_if_lost()
        self._hold.lose(LostReason.RELEASED)
        # The session's thread is not to take it for what nobody knows of.
        core.begin(self._hold.request_id)
        core.remove(self._hold)
        try:
            core.release(self.resource, token=self.token, fence=refused_by_fence)
        except BaseException:
            # Nobody tries again from here on, so the session's thread does.
            if self._owns_session:
                core.close_soon()
            else:
                core.give_back(self.resource, self._hold.request_id, core.epochs.current)
            raise
        finally:
            core.end(self._hold.request_id)
        if self._owns_session:
            closed_quietly(self._owner)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hold.reason is None and self.state.is_held:
            stale = isinstance(error, Stale) and error.resource == self.resource
            try:
                self.release(refused_by_fence=error.fence if stale and isinstance(error, Stale) else 0)
            except PalisadeError as problem:
                log.warning("%s not released; it ends with its session: %s", self.resource, problem)
        elif self._owns_session:
            closed_quietly(self._owner)


class Session:
    """One process's liveness at the coordinators: what holds leases. It is renewed until it is closed.

    Its secret is in this process's memory only: a restarted process, or a child of a fork, opens a session of its own.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.state.value}>"

    @property
    def id(self) -> str:
        """The session's id, for logs and for people."""
        return self._owner.core.credentials.session_id

    @property
    def ttl(self) -> float:
        """The TTL granted, in seconds."""
        return self._owner.core.ttl / SECOND

    @property
    def state(self) -> State:
        """How it stands now, by the clock and not by a timer (I8)."""
        return self._owner.core.state()

    @property
    def time_left(self) -> float:
        """Seconds to the local deadline; 0 once the session has ended."""
        return self._owner.core.time_left() / SECOND

    def lease(
        self,
        resource: str,
        *,
        wait: float = 0,
        metadata: bytes = b"",
        lock_delay: float = 0,
        on_lost: OnLost | None = None,
    ) -> Lease:
        """Acquires a resource, and waits for it as many seconds as told; for use in a `with`, which releases it.

        `metadata` are up to 4 KiB for whoever may read the lease. `lock_delay` is for how many seconds nobody gets the
        resource after an unclean end, for stores without a guard. `on_lost` is called, in a thread of its own, if the
        lease is lost.

        Tries and retries are one request, granted at most once (I4); one that is interrupted is given back (I5). Raises
        `Held` without a wait, `WaitExpired` after it, `AlreadyHeld`, `Lost`, `Invalid`, `Denied`, `LimitReached`,
        `NotServed`, `Unavailable`.
        """
        asked = Asked(resource, wait, metadata, lock_delay)
        return Lease(self._owner, acquired(self._owner.core, asked, on_lost), owns_session=False)

    def close(self) -> None:
        """Closes the session: all its leases are lost here at once, and released at the coordinator.

        Raises `Denied` or `Unavailable` if it ends by its TTL only.
        """
        closed(self._owner.core)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closed_quietly(self._owner)


class Asked:
    """One request, the same in each of its tries but for wait, attempt and epoch."""

    def __init__(self, resource: str, wait: float, metadata: bytes, lock_delay: float) -> None:
        for name, given in (("wait", wait), ("lock_delay", lock_delay)):
            if not 0 <= given < 1e6:
                raise Invalid(name, "seconds from 0 on", str(given))
        self.resource = resource
        self.request_id = new_id()
        self.wait = nanoseconds(wait)
        self._metadata = metadata
        self._lock_delay = nanoseconds(lock_delay)

    def message(self, core: Core, this: Try, wait: int) -> messages.AcquireRequest:
        return messages.AcquireRequest(
            session=core.credentials.at(this.epoch),
            request_id=self.request_id,
            resource=self.resource,
            wait_ms=milliseconds(wait),
            lock_delay_ms=milliseconds(self._lock_delay),
            metadata=self._metadata,
            attempt=this.attempt,
        )


def acquired(core: Core, asked: Asked, on_lost: OnLost | None) -> Hold:
    """Asks until it is answered; whatever ends this otherwise, a grant that nobody knows of is given back."""
    core.watch()
    shared = core.shared
    tries = Tries(shared, core.epochs)
    wait_end = shared.clock.now() + asked.wait
    deadline = wait_end + shared.operation_timeout
    sent_epoch = 0
    core.begin(asked.request_id)
    try:
        while True:
            wait = max(wait_end - shared.clock.now(), 0)
            whole = wait + shared.call_timeout
            limit = min(whole, max(jittered(LONGEST_CALL, LONGEST_CALL_PERMILLE), shared.call_timeout))
            goes_on = limit < whole
            this = tries.next_try()
            sent_epoch, begun = this.epoch, shared.clock.now()
            message = asked.message(core, this, wait)
            try:
                answer = shared.try_once(ACQUIRE, message, limit, at_fault=not goes_on, watch=core.watch)
            except Failure as failure:
                # The coordinator may cut it short a little earlier than the clock here.
                if goes_on and failure.is_no_answer and shared.clock.now() - begun >= limit // 2:
                    tries.go_on()
                    continue
                unknown = tries.may_have_happened or failure.may_have_happened
                if is_decided(failure, unknown, asked.wait == 0):
                    sent_epoch = 0
                tries.after(failure, deadline, core.watch)
                continue
            hold = granted(asked, answer.body, on_lost)
            core.add(hold)
            return hold
    except BaseException as error:
        if sent_epoch:
            core.give_back(asked.resource, asked.request_id, sent_epoch)
        if isinstance(error, Lost):
            core.lose(error.reason)
        # The last tries of a request that waited do not wait any more: what they meet is the wait's end.
        if isinstance(error, Held) and asked.wait:
            raise WaitExpired(error.resource) from None
        raise
    finally:
        core.end(asked.request_id)


def is_decided(failure: Failure, unknown: bool, is_try: bool) -> bool:
    """Whether nothing of the request can be granted any more, or stand in the queue."""
    match failure.error:
        case WaitExpired() | Lost():
            return not failure.may_have_happened
        case Held():
            return not failure.may_have_happened and (is_try or not unknown)
    return not unknown


def granted(asked: Asked, answer: messages.AcquireResponse, on_lost: OnLost | None) -> Hold:
    lease = answer.lease
    if lease.resource != asked.resource or lease.request_id != asked.request_id or lease.token <= 0:
        raise Unexpected("a grant of another request")
    grant = Grant(lease.resource, lease.token, lease.holder.hex())
    return Hold(grant, asked.request_id, lease.granted_revision, on_lost)
