"""The routes of the holdings on a connection, and the log of their changes."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.gateway.accounts.holdings import HoldingsBook
from position_sync_dagster.sync.counts import StreamCounts, StreamMetrics
from position_sync_dagster.sync.stream.publisher import QUEUED

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChanges:
    """Holdings that enter or leave the route STREAMED.

    Attributes:
        streamed: Those that are streamed from now on.
        closed: Those that were streamed and are closed now.
        left: Those that were streamed and go to the queue now.
    """

    streamed: list[Key]
    closed: list[Key]
    left: list[Key]


class Routes:
    """The route of each holding on the present connection.

    Attributes:
        states: (account, conid) → STREAMED, OVERFLOW, MONITORED or CLOSED.
        streamed, overflow: The holdings with that route.
        unqueued: Holdings that lost their line, or became active without one, and are not queued
            yet. While there are any, the next step routes and queues again.
        version: The number of changes of the routes.
    """

    def __init__(self) -> None:
        self.version = 0
        self.clear()

    def clear(self) -> None:
        """Remove all routes: the connection is new, or lost its data."""
        self.version += 1
        self.states: dict[Key, LegState] = {}
        self.streamed: set[Key] = set()
        self.overflow: set[Key] = set()
        self.unqueued: set[Key] = set()

    def outdated(self, book: HoldingsBook, keys: Iterable[Key]) -> set[Key]:
        """Return the holdings that are new, or were opened or closed since they were routed."""
        found = set()
        for key in keys:
            position, state = book.position(key), self.states.get(key)
            if position is None:
                continue
            if state is None or (state is LegState.CLOSED) != (position == 0):
                found.add(key)
        return found

    def update(self, states: Mapping[Key, LegState]) -> RouteChanges:
        """Set the routes of these holdings; return those that enter or leave STREAMED."""
        changes, changed = RouteChanges(streamed=[], closed=[], left=[]), dict[Key, LegState]()
        for key, state in states.items():
            before = self.states.get(key)
            if state is before:
                continue
            changed[key] = state
            if state is LegState.STREAMED:
                changes.streamed.append(key)
            elif before is LegState.STREAMED and state is LegState.CLOSED:
                changes.closed.append(key)
            elif before is LegState.STREAMED:
                changes.left.append(key)
                self.unqueued.add(key)
            elif before and state is LegState.OVERFLOW:
                self.unqueued.add(key)
        if changed:
            self.states |= changed
            self.version += 1
            for found, sought in (
                (self.streamed, LegState.STREAMED),
                (self.overflow, LegState.OVERFLOW),
            ):
                found.difference_update(changed)
                found.update(key for key, state in changed.items() if state is sought)
        self.unqueued = {key for key in self.unqueued if self.states.get(key) in QUEUED}
        return changes


MAX_LINES_LOGGED = 20
"""Maximum number of route changes logged one by one in a step; the rest is one summary line. A line
in the log of a run costs milliseconds."""


@dataclass(eq=False, repr=False)
class RouteLog:
    """Logs each change of a route and counts promotions and demotions, also across a reconnect."""

    metrics: StreamMetrics

    def __post_init__(self) -> None:
        self._logged: dict[Key, LegState] = {}

    def record(self, routes: Mapping[Key, LegState], reason_for: Callable[[int], str]) -> None:
        """Log and count the routes that differ from those recorded before.

        Args:
            reason_for: Returns in brackets why a conid has no market data.
        """
        changed = [
            (key, before, state)
            for key, state in routes.items()
            if (before := self._logged.get(key)) is not None and before is not state
        ]
        self._logged.update(routes)
        counts = Counter((before, state) for _key, before, state in changed)
        self.metrics.counts += StreamCounts(
            promotions=counts[LegState.OVERFLOW, LegState.STREAMED],
            demotions=counts[LegState.STREAMED, LegState.OVERFLOW],
        )
        for (account, conid), before, state in changed[:MAX_LINES_LOGGED]:
            logger.info("%s of %s: %s → %s%s", conid, account, before, state, reason_for(conid))
        if len(changed) > MAX_LINES_LOGGED:
            summary = ", ".join(f"{n} {before} → {state}" for (before, state), n in counts.items())
            logger.info("%d routes changed: %s", len(changed), summary)
