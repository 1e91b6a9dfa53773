"""Whether a session still stands, as far as this process may believe it: pure, every moment is given.

Moments and durations are nanoseconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

PPM = 1_000_000


class State(enum.Enum):
    """How a session, and with it each of its leases, stands."""

    HELD = "held"
    """Renewed, and the local deadline lies ahead."""
    SUSPECT = "suspect"
    """The last renewal failed, and the local deadline still lies ahead: finish what is running, start nothing long."""
    EXPIRED = "expired"
    """The local deadline has passed. The coordinator may have granted the resource to others: stop."""
    LOST = "lost"
    """It has ended otherwise: stop."""

    @property
    def is_held(self) -> bool:
        """Whether work under the lease may go on."""
        return self in (State.HELD, State.SUSPECT)


class LostReason(enum.Enum):
    """Why a session, or one of its leases, is lost."""

    EXPIRED = "expired"
    """The local deadline passed without a renewal."""
    ENDED = "ended"
    """The coordinator says that the session has ended."""
    CLOSED = "closed"
    """This process closed the session."""
    RELEASED = "released"
    """This process released the lease."""
    GONE = "gone"
    """The coordinator says that the lease is the session's no more: it was revoked, say. The session goes on."""
    FORKED = "forked"
    """This is a child of the process that holds it: only that one renews it."""


@dataclass(frozen=True)
class Allowance:
    """What is taken off a TTL before it is believed."""

    drift_ppm: int
    margin: int

    def deadline(self, sent: int, ttl_left: int) -> int:
        """Until when a TTL may be believed that was counted from `sent` or later."""
        believed = ttl_left * (PPM - self.drift_ppm) // PPM
        return sent + max(believed - self.margin, 0)


@dataclass
class Standing:
    """A session's standing. Once it has ended, by its deadline or by news, nothing revives it (I8)."""

    allowance: Allowance
    renewed_at: int
    """When the last renewal that was answered had been sent."""
    deadline: int
    _failing: bool = field(default=False, init=False)
    _ended: LostReason | None = field(default=None, init=False)

    @classmethod
    def opened(cls, allowance: Allowance, sent: int, ttl_left: int) -> Standing:
        """The standing of a session that was opened by a call sent at `sent`."""
        return cls(allowance, sent, allowance.deadline(sent, ttl_left))

    def observe(self, now: int) -> State:
        """How it stands at `now`. Passing the deadline is final from the first look on."""
        if self._ended is None and now >= self.deadline:
            self._ended = LostReason.EXPIRED
        if self._ended is LostReason.EXPIRED:
            return State.EXPIRED
        if self._ended is not None:
            return State.LOST
        return State.SUSPECT if self._failing else State.HELD

    def renewed(self, now: int, sent: int, ttl_left: int) -> None:
        """A renewal sent at `sent` was answered.

        An answer that overtook another, or came twice, moves the deadline neither back nor past what its own sending
        allows.
        """
        if not self.observe(now).is_held:
            return
        self.deadline = max(self.deadline, self.allowance.deadline(sent, ttl_left))
        if sent >= self.renewed_at:
            self.renewed_at = sent
            self._failing = False

    def failing(self) -> None:
        """A renewal failed, or its outcome is unknown."""
        self._failing = True

    def lost(self, now: int, reason: LostReason) -> None:
        """The session has ended. The first reason stays."""
        if self.observe(now).is_held:
            self._ended = reason

    @property
    def reason(self) -> LostReason | None:
        """Why it has ended, if it was seen to."""
        return self._ended
