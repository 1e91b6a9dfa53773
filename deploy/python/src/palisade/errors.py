"""Why a call of this package failed. Each says what to do; none carries the secret of a session."""

from __future__ import annotations

import enum

from .standing import LostReason


class PalisadeError(Exception):
    """All errors of this package."""

    may_have_happened = False
    """Whether the call may have taken effect all the same."""


class Held(PalisadeError):
    """Another session holds the resource, or others wait for it, and the call was told not to wait."""

    def __init__(self, resource: str, token: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(resource, token, retry_after)
        self.resource = resource
        self.token = token
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.resource} is held by another session; wait for it, or try again later"


class AlreadyHeld(PalisadeError):
    """This session holds the resource already, by another request: use that lease, or release it first."""

    def __init__(self, resource: str, request_id: str, token: int | None = None) -> None:
        super().__init__(resource, request_id, token)
        self.resource = resource
        self.request_id = request_id
        self.token = token

    def __str__(self) -> str:
        return f"this session holds {self.resource} already, by another request; use that lease"


class WaitExpired(PalisadeError):
    """The wait was over before the resource was granted. A new acquire queues again, at the end."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource)
        self.resource = resource

    def __str__(self) -> str:
        return f"the wait for {self.resource} was over before it was granted; acquire again to queue again"


class Cancelled(PalisadeError):
    """The request was given back while it waited. Acquire again."""

    def __str__(self) -> str:
        return "the request was given back while it waited; acquire again"


class Lost(PalisadeError):
    """The lease, or its session, is lost: stop the work that relies on it, and acquire again in a new session."""

    def __init__(self, reason: LostReason) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        if self.reason is LostReason.FORKED:
            return "this process was forked from the one that holds the lease; use the lease there"
        return f"the lease is lost ({self.reason.value}); stop, and acquire again"


class Cause(enum.Enum):
    """What the last try of a call met that no coordinator served."""

    UNREACHABLE = "no connection to any endpoint"
    NO_ANSWER = "no answer in time, or the connection broke"
    STORE = "the coordinator's store is away or has no quorum"
    DRAINING = "the coordinator is draining"
    HISTORY_REGRESSED = "the coordinator has no generation that it trusts, so it grants nothing"
    WRONG_CLUSTER = "the coordinator's store endpoints are of different clusters, so it grants nothing"
    SUPERSEDED = "other calls of this session overtook this one each time it was tried"
    INTERNAL = "a fault of the coordinator"


class Uncertain(PalisadeError):
    """An error that says whether the call may have taken effect all the same."""

    def _unsure(self, said: str) -> str:
        return f"{said}; it may have happened all the same" if self.may_have_happened else said


class Unavailable(Uncertain):
    """No coordinator served the call, though it was tried for as long as it may take. Try again later."""

    def __init__(self, cause: Cause, may_have_happened: bool, retry_after: float | None = None) -> None:
        super().__init__(cause, may_have_happened, retry_after)
        self.cause = cause
        self.may_have_happened = may_have_happened
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self._unsure(f"no coordinator served the call ({self.cause.value}); try again later")


class LimitReached(Uncertain):
    """A limit of the coordinator or of its store is reached. Try again later, with fewer."""

    def __init__(
        self, limit: str, bound: str, may_have_happened: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(limit, bound, may_have_happened, retry_after)
        self.limit = limit
        self.bound = bound
        self.may_have_happened = may_have_happened
        self.retry_after = retry_after

    def __str__(self) -> str:
        said = f"the coordinator's limit of {self.limit} is reached ({self.bound}); try again later, with fewer"
        return self._unsure(said)


class Denied(Uncertain):
    """The coordinator does not allow this to the caller."""

    def __init__(self, may_have_happened: bool = False) -> None:
        super().__init__(may_have_happened)
        self.may_have_happened = may_have_happened

    def __str__(self) -> str:
        return self._unsure("the coordinator does not allow this; check credentials and access rules")


class Invalid(PalisadeError, ValueError):
    """An argument is outside its bound. Trying again does not help."""

    def __init__(self, field: str, bound: str, given: str = "") -> None:
        super().__init__(field, bound, given)
        self.field = field
        self.bound = bound
        self.given = given

    def __str__(self) -> str:
        return f"{self.field} is {self.given!r}; allowed is {self.bound}"


class StaleToken(PalisadeError):
    """The token is above the resource's current one, or of another session's hold: it cannot be released."""

    def __init__(self, presented: int | None, current: int | None) -> None:
        super().__init__(presented, current)
        self.presented = presented
        self.current = current

    def __str__(self) -> str:
        return f"token {self.presented} is not this session's (current: {self.current}); it cannot be released"


class FenceAhead(PalisadeError):
    """The lease is released, but the guard's fence is over a day ahead of the coordinator's clock."""

    def __init__(self, fence: int | None) -> None:
        super().__init__(fence)
        self.fence = fence

    def __str__(self) -> str:
        return (
            f"the lease is released, but the guard's fence ({self.fence}) is over a day ahead of the coordinator's "
            "clock and will refuse the next token, too; correct that clock, or the guard's database"
        )


class NotServed(PalisadeError):
    """This coordinator's version does not serve the call."""

    def __str__(self) -> str:
        return "the coordinator does not serve this call; use a newer one"


class Unexpected(PalisadeError):
    """An answer that this version does not understand."""

    may_have_happened = True

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"the coordinator's answer is not understood ({self.what}); it may have happened; use a newer client"


class Forked(PalisadeError):
    """A client was used in a child of the process that made it: gRPC and a session's secret belong to one process."""

    def __str__(self) -> str:
        return "this client was made before a fork; make one in the child process"


class GuardError(PalisadeError):
    """A guarded transaction did not commit, unless it is `CommitUnknown`."""


class Stale(GuardError):
    """A later holder has sealed the resource. Stop; never try again with this grant."""

    def __init__(self, resource: str, presented: int, fence: int) -> None:
        super().__init__(resource, presented, fence)
        self.resource = resource
        self.presented = presented
        self.fence = fence

    def __str__(self) -> str:
        return f"stale token {self.presented} for {self.resource}: the fence is at {self.fence}; stop"


class Unsealed(GuardError):
    """The token is above the fence. If it was sealed, the database went backwards: seal again, and read again."""

    def __init__(self, resource: str, presented: int, fence: int | None) -> None:
        super().__init__(resource, presented, fence)
        self.resource = resource
        self.presented = presented
        self.fence = fence

    def __str__(self) -> str:
        return f"unsealed token {self.presented} for {self.resource} (fence: {self.fence}); seal, and read again"


class Unguarded(GuardError):
    """A write to a protected table of a resource that the transaction has not entered: a bug in the caller."""

    def __init__(self, resource: str, table: str | None = None) -> None:
        super().__init__(resource, table)
        self.resource = resource
        self.table = table

    def __str__(self) -> str:
        where = f" in {self.table}" if self.table else ""
        return f"a write{where} without an entry for {self.resource}; do it in a transaction guarded for it"


class Collision(GuardError):
    """The token was sealed by another holder. Stop; acquire again to get a greater one."""

    def __init__(self, resource: str, token: int) -> None:
        super().__init__(resource, token)
        self.resource = resource
        self.token = token

    def __str__(self) -> str:
        return f"token {self.token} for {self.resource} was sealed by another holder; stop, and acquire again"


class SealTimeout(GuardError):
    """Running writers kept the seal waiting for too long. `blockers` are what they are: pid or gid, and name."""

    def __init__(self, resource: str, waited: float, blockers: tuple[str, ...] = ()) -> None:
        super().__init__(resource, waited, blockers)
        self.resource = resource
        self.waited = waited
        self.blockers = blockers

    def __str__(self) -> str:
        who = ", ".join(self.blockers) or "nobody any more"
        return f"{self.resource} was not sealed within {self.waited:g} s; what held it up: {who}"


class Serialization(GuardError):
    """The database asks for the whole transaction to be run again. Nothing was committed."""

    def __str__(self) -> str:
        return "the transaction met another one; run the whole of it again"


class RolledBack(GuardError):
    """Nothing was committed: a statement had failed before, or the database refused the commit."""

    def __str__(self) -> str:
        return "the transaction was rolled back: a statement in it had failed, or the database refused to commit"


class CommitUnknown(GuardError):
    """The answer to COMMIT was lost. `palisade.guard.outcome` tells what became of `transaction`."""

    may_have_happened = True

    def __init__(self, transaction: int) -> None:
        super().__init__(transaction)
        self.transaction = transaction

    def __str__(self) -> str:
        return f"the answer to COMMIT was lost; transaction {self.transaction} may have committed: ask for its outcome"


class Misuse(GuardError):
    """The guard was called in a way that cannot be guarded; the text says how. Nothing was sent."""
