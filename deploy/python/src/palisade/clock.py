"""The one place where the client reads a clock or waits for one."""

from __future__ import annotations

import sys
import threading
import time
from typing import Protocol

SECOND = 1_000_000_000
"""A second in nanoseconds: all moments and durations inside the package are whole nanoseconds."""

SLICE = 250_000_000
"""Timers stand still while the machine is suspended and the lease clock does not, so this bounds, in nanoseconds,
how late a notice can be after a resume."""

# CLOCK_BOOTTIME counts the time that the machine was suspended, CLOCK_MONOTONIC of Linux does not.
_LEASE_CLOCK = time.CLOCK_BOOTTIME if sys.platform == "linux" else time.CLOCK_MONOTONIC


class Clock(Protocol):
    """Where the client gets its time from: the machine's clock, or a test's."""

    def now(self) -> int:
        """Now, in nanoseconds, by a clock that never goes back and goes on while the machine is suspended."""

    def wait(self, event: threading.Event, limit: int) -> bool:
        """Waits until the event is set or `limit` nanoseconds are over by `now`; whether it is set."""


class SystemClock:
    """The machine's clock.

    A virtual machine that was paused from outside may not count that time on any of its clocks. No local deadline is
    sound there; the guard is what stops a stale writer.
    """

    def now(self) -> int:
        return time.clock_gettime_ns(_LEASE_CLOCK)

    def wait(self, event: threading.Event, limit: int) -> bool:
        end = self.now() + limit
        while True:
            left = end - self.now()
            if event.wait(max(min(left, SLICE), 0) / SECOND):
                return True
            if left <= 0:
                return False


def nanoseconds(seconds: float) -> int:
    """Seconds, as users give them, in nanoseconds."""
    return round(seconds * SECOND)


def milliseconds(given: int) -> int:
    """Nanoseconds as the wire has them, rounded up: a very short wait is still a wait."""
    return -(-given // 1_000_000)
