"""The routes of the holdings: their changes, what these require, and their log."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.gateway.accounts.holdings import HoldingsBook
from position_sync_dagster.sync.owner.metrics import StreamMetrics
from position_sync_dagster.sync.owner.publisher import QUEUED

logger = logging.getLogger(__name__)

MAX_LINES_LOGGED = 20
"""So many changes at once have a log line each. More than that are summed up in one: a line costs
milliseconds in the log of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChanges:
    """The holdings whose change of route concerns the stream.

    Attributes:
        streamed: Those that are streamed from now on.
        closed: Those that were streamed and are closed now.
    """

    streamed: list[Key]
    closed: list[Key]


class Routes:
    """The route of each holding on the present connection.

    Attributes:
        states: (account, conid) → STREAMED, OVERFLOW, MONITORED or CLOSED.
        streamed, overflow: The holdings with that route.
        unqueued: Holdings that lost their line, or became active without one, and that the queue
            does not have yet. The next step routes and queues again while there are any.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget every route: the connection is a new one, or lost its data."""
        self.states: dict[Key, LegState] = {}
        self.streamed: set[Key] = set()
        self.overflow: set[Key] = set()
        self.unqueued: set[Key] = set()

    def outdated(self, book: HoldingsBook, keys: Iterable[Key]) -> set[Key]:
        """Return which holdings were opened or closed since they were routed, or are new."""
        found = set()
        for key in keys:
            position, state = book.position(key), self.states.get(key)
            if position is None:
                continue
            if state is None or (state is LegState.CLOSED) != (position == 0):
                found.add(key)
        return found

    def update(self, states: Mapping[Key, LegState]) -> RouteChanges:
        """Set the routes of these holdings, and return which changes concern the stream.

        The mapping `states` is another one after a change.
        """
        streamed, closed, changed = [], [], {}
        for key, state in states.items():
            before = self.states.get(key)
            if state is before:
                continue
            changed[key] = state
            if state is LegState.STREAMED:
                streamed.append(key)
            elif before is LegState.STREAMED and state is LegState.CLOSED:
                closed.append(key)
            elif before is LegState.STREAMED or (before and state is LegState.OVERFLOW):
                self.unqueued.add(key)
        if changed:
            self.states = self.states | changed
            for found, sought in (
                (self.streamed, LegState.STREAMED),
                (self.overflow, LegState.OVERFLOW),
            ):
                found.difference_update(changed)
                found.update(key for key, state in changed.items() if state is sought)
        self.unqueued = {key for key in self.unqueued if self.states.get(key) in QUEUED}
        return RouteChanges(streamed=streamed, closed=closed)


class RouteLog:
    """Logs each change of a route and counts promotions and demotions, also across a reconnect."""

    def __init__(self, metrics: StreamMetrics) -> None:
        self._metrics = metrics
        self._logged: dict[Key, LegState] = {}

    def record(
        self, routes: Mapping[Key, LegState], reason_for: Callable[[int, LegState], str]
    ) -> None:
        """Log and count the routes that differ from those recorded before.

        Args:
            reason_for: Returns the reason for the route of a conid, in brackets.
        """
        changed = [
            (key, before, state)
            for key, state in routes.items()
            if (before := self._logged.get(key)) is not None and before is not state
        ]
        self._logged.update(routes)
        counts = Counter((before, state) for _key, before, state in changed)
        self._metrics.promotions += counts[LegState.OVERFLOW, LegState.STREAMED]
        self._metrics.demotions += counts[LegState.STREAMED, LegState.OVERFLOW]
        for (account, conid), before, state in changed[:MAX_LINES_LOGGED]:
            reason = reason_for(conid, state)
            logger.info("%s of %s: %s → %s%s", conid, account, before, state, reason)
        if len(changed) > MAX_LINES_LOGGED:
            summary = ", ".join(f"{n} {before} → {state}" for (before, state), n in counts.items())
            logger.info("%d routes changed: %s", len(changed), summary)
