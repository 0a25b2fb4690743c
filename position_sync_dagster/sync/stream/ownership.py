"""The lease on a login, whose account feed one process at a time owns; work of its owner."""

import asyncio
import logging
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from math import inf
from typing import Any, ClassVar, Self, TypeVarTuple
from weakref import WeakValueDictionary

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.gateway_session import ALIVE, GatewaySession, Owner, SessionState
from position_sync_dagster.domain.valuation import Provenance
from position_sync_dagster.errors import (
    LakeError,
    LeaseLostError,
    LoginOwnedError,
    PositionSyncError,
    StalledError,
    StoreError,
)
from position_sync_dagster.lake.sessions import GatewaySessions, login_owned
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.outage_log import OutageLog
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.waits import end_tasks, wait_for_first

logger = logging.getLogger(__name__)

# How often the owner of a login renews its session. Its lease (`session_lease_s`) is longer: by
# default two renewals in a row may fail.
HEARTBEAT_S = 4.0

# Work beside the steps of a stream that failed is begun again after this time.
WORK_AGAIN_S = 10.0


Args = TypeVarTuple("Args")
Work = Coroutine[Any, Any, None]

# Seconds between two attempts to acquire a login that another process owns.
LOGIN_POLL_S = 0.5


@dataclass(slots=True, kw_only=True)
class StreamCounts:
    """What a stream did so far.

    Attributes:
        rows: Rows written to `position_updates`.
        commits: The number of commits of these rows.
        enqueued: Requests put into `position_queue`.
        reconnects: Number of times the connection was made again.
    """

    rows: int = 0
    commits: int = 0
    enqueued: int = 0
    reconnects: int = 0


@dataclass(eq=False, repr=False)
class Ownership:
    """The lease on a login, held during an `async with` block and renewed in the background.

    All objects of an owner share it: each checks it before it writes. Its loss ends every pause.

    Args:
        wait_s: Maximum wait for the present owner to end, in seconds.
        stop: An event that ends this wait early.
        monotonic: The clock of every interval of the owner, in seconds.

    Attributes:
        counts: What the owner did so far.
        session: The lease as it was last renewed.
        status: Returns what `GatewaySessions.renew` writes with each heartbeat.
        provenance: The columns that show which owner wrote a row.
        lost: Set when the lease is lost: nothing more may be written.
        store_fault: Why the lease was not renewed, if the store could not be used.

    Raises:
        LoginOwnedError: Another process owns the login and did not end in time.

    Example:
        async with Ownership(lake.sessions, settings, owner=Owner.STREAM) as own:
            own.check()  # before each write
    """

    sessions: GatewaySessions
    settings: Settings
    _: KW_ONLY
    owner: Owner
    run_id: str | None = None
    wait_s: float = 0.0
    stop: asyncio.Event | None = None
    clock: Clock = utc_now
    monotonic: Callable[[], float] = time.monotonic

    # Who owns each login in this process: two may use lakes that do not know each other.
    _owners: ClassVar[WeakValueDictionary[str, "Ownership"]] = WeakValueDictionary()

    def __post_init__(self) -> None:
        self.counts = StreamCounts()
        self.session: GatewaySession
        self.provenance: Provenance
        self._renewed_s = self.monotonic()  # when the newest renewal began
        self._task: asyncio.Task[None] | None = None  # renews the lease
        self.status: Callable[[], dict[str, Any]] = lambda: {"state": SessionState.STARTING}
        self._renewal_requested = asyncio.Event()  # set by `renew_now`
        self._outage = OutageLog(logger)
        self.store_fault: LakeError | None = None
        self._loss: LeaseLostError | None = None  # it says who has the login now
        self.lost = asyncio.Event()

    def renew_now(self) -> None:
        """Renew the lease now, because the status has changed."""
        self._renewal_requested.set()

    def check(self) -> None:
        """Raise an error if the lease is over; call it before each write.

        Raises:
            LeaseLostError: The lease belongs to another process, or is no longer renewed.
            StoreError: It ran out while the store could not be used.
            StalledError: It ran out in another way: it was not renewed in time, or the clock moved.
        """
        end = f"{self.session.expires_at:%H:%M:%S} UTC"
        ended = f"The lease on {self.session.gateway_id} ended at {end}"
        if self.lost.is_set():
            raise self._loss or LeaseLostError(
                f"{ended}.",
                remedy="Another process may own the login now; this one writes nothing more.",
            )
        if self.suspended:
            raise self.store_fault or StalledError(
                f"{ended} and was not renewed.",
                remedy="It is renewed late, unless another process is faster.",
            )

    @property
    def suspended(self) -> bool:
        """Whether the lease ran out, and nobody is known to have taken the login.

        The store could not be used, the process or the machine stood still, or the clock moved.
        The next heartbeat renews the lease, unless another process is faster. Until then nothing is
        written, and the gateway is left to others.
        """
        return self._is_over() and not self.lost.is_set()

    def _is_over(self) -> bool:
        """Return whether the lease is over by either clock: this machine's may have been set."""
        held_s = self.monotonic() - self._renewed_s
        return self.clock() >= self.session.expires_at or held_s >= self.settings.session_lease_s

    async def __aenter__(self) -> Self:
        return await self.begin()

    async def __aexit__(self, kind: type | None, error: object, _trace: object) -> None:
        await self.end(None if kind is None else f"{kind.__name__}: {error}")

    async def begin(self) -> Self:
        """Acquire the lease, and renew it from now on.

        Raises:
            LoginOwnedError: The login has another owner.
        """
        self.session = await self._acquired()
        self._owners[self.settings.gateway_id] = self  # for others in this process to see
        # The handlers of a library may write into another lake, where its token means nothing.
        token = None if self.owner is Owner.LIBRARY else self.session.fencing_token
        self.provenance = Provenance(
            session_id=self.session.session_id, fencing_token=token, run_id=self.run_id
        )
        self._task = asyncio.create_task(self._heartbeat())
        return self

    async def _acquired(self) -> GatewaySession:
        """Acquire the lease, and wait until its present owner has ended.

        Raises:
            LoginOwnedError: It did not end in time, or this one shall stop.
        """
        deadline_s = self.monotonic() + self.wait_s
        while True:
            self._renewed_s = self.monotonic()  # the lease counts from before it is stored
            try:
                other = self._owners.get(self.settings.gateway_id)
                if other is not None and not other.lost.is_set() and not other._is_over():
                    raise login_owned(other.session)  # in this process, by another object
                return await offload(
                    self.sessions.acquire,
                    self.settings.gateway_id,
                    self.owner,
                    lease_s=self.settings.session_lease_s,
                    run_id=self.run_id,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                )
            except LoginOwnedError:
                stopped = self.stop is not None and self.stop.is_set()
                if stopped or self.monotonic() >= deadline_s:
                    raise
                await asyncio.sleep(LOGIN_POLL_S)

    async def end(self, detail: str | None = None) -> None:
        """End the lease; the session keeps why, if it did not end as it should."""
        if self._task is not None:
            await end_tasks(self._task)
        if self._owners.get(self.settings.gateway_id) is self:
            del self._owners[self.settings.gateway_id]
        if not self.lost.is_set():
            with suppress(LakeError):
                await offload(self.sessions.end, self.session, detail=detail)

    async def _heartbeat(self) -> None:
        """Renew the lease again and again; if it cannot be, it is lost, or the store is away."""
        while not self.lost.is_set():
            await wait_for_first([self._renewal_requested], timeout_s=HEARTBEAT_S)
            self._renewal_requested.clear()
            try:
                await self._renew()

            except LeaseLostError as error:
                logger.error("%s", error)
                self._loss = error
                self.lost.set()

            except LakeError as error:
                self._outage.report(str(error))
                if isinstance(error, StoreError):
                    self.store_fault = error
                elif self._is_over():  # the table cannot be used: no later heartbeat mends that
                    self.lost.set()

            except Exception:
                logger.exception("the lease on %s is no longer renewed", self.session.gateway_id)
                self.lost.set()

    async def _renew(self) -> None:
        """Renew the lease, with the status of the owner; it counts from before the write.

        Raises:
            LakeError: The lease is lost, or the table cannot be used.
        """
        began_s = self.monotonic()
        status = self.status()
        if status["state"] not in ALIVE:
            # An owner that is ending holds the login until all is written and closed: to others it
            # keeps its last state (None).
            status["state"] = None

        # Not in the lake's threads: there it would wait for slow commits.
        self.session = await asyncio.to_thread(
            self.sessions.renew,
            self.session,
            lease_s=self.settings.session_lease_s,
            **status,
        )
        self._renewed_s = began_s
        self._outage.fault = None
        self.store_fault = None


class BackgroundWork:
    """The work beside the steps of an owner: each kind is one task at a time.

    An error ends the work of one kind until `WORK_AGAIN_S` later, and is logged once per outage.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        # By kind of work: its newest task, when it may begin after an error, and its outage.
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again_at_s: dict[str, float] = defaultdict(lambda: -inf)
        self._outages: dict[str, OutageLog] = defaultdict(lambda: OutageLog(logger))

    def begin(self, kind: str, work: Callable[[*Args], Work], *args: *Args) -> None:
        """Begin work, unless that of its kind is still running, or has just failed."""
        task = self._tasks.get(kind)
        if (task is None or task.done()) and self._monotonic() >= self._again_at_s[kind]:
            self._tasks[kind] = asyncio.create_task(self._run(kind, work(*args)))

    async def end(self, *, within_s: float = 0.0) -> None:
        """Cancel what has not ended in a time, and wait until it has ended."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=within_s)
            await end_tasks(*self._tasks.values())

    async def _run(self, kind: str, work: Work) -> None:
        """Do work of a kind; after an error, it may not begin again at once."""
        outage = self._outages[kind]
        try:
            await work
            outage.fault = None
        except Exception as error:  # noqa: BLE001 - no error here may end the stream of values
            self._again_at_s[kind] = self._monotonic() + WORK_AGAIN_S
            is_known = isinstance(error, PositionSyncError | ConnectionError)
            fault = f"{kind}, tried again later: {error}"
            outage.report(fault, error=None if is_known else error)
