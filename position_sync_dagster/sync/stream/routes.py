"""The route of each holding on the present connection."""

import logging

from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.leg import QUEUED, LegState, LegStates

logger = logging.getLogger(__name__)

# Maximum number of route changes logged in a step: a line in the log of a run costs milliseconds.
MAX_LINES_LOGGED = 20


class Routes:
    """The route of each holding on the present connection.

    Attributes:
        states: (account, conid) → STREAMED, OVERFLOW, MONITORED or CLOSED.
        unqueued: Holdings that lost their line, or became active without one, and are not queued
            yet. While there are any, the next step routes and queues again.
        version: The number of changes of the routes: who computes something from them compares it.
    """

    def __init__(self) -> None:
        self.version = 0
        self.clear()

    def clear(self) -> None:
        """Remove all routes: the connection is new, or lost its data."""
        self.version += 1
        self.states: LegStates = {}
        self.unqueued: set[Key] = set()

    def update(self, states: LegStates) -> dict[Key, LegState | None]:
        """Set the routes of these holdings, and log what changed.

        A holding that lost its line, or became active without one, goes to `unqueued`: it needs a
        request at once. What is new, or has another quantity, is queued by the step that
        publishes it.

        Returns:
            The routes before of those that changed; a new holding had None.
        """
        changed = {
            key: before
            for key, state in states.items()
            if (before := self.states.get(key)) is not state
        }
        if changed:
            self.states |= states
            self.version += 1

        for key, before in changed.items():
            lost_its_line = before is LegState.STREAMED
            # It is valued more often now. What is new without a line is queued as new.
            became_active = before is not None and states[key] is LegState.OVERFLOW
            if lost_its_line or became_active:
                self.unqueued.add(key)
        self.unqueued = {key for key in self.unqueued if self.states.get(key) in QUEUED}

        moved = [(key, before) for key, before in changed.items() if before]
        for (account, conid), before in moved[:MAX_LINES_LOGGED]:
            logger.info("%s of %s: %s → %s", conid, account, before, states[account, conid])
        if len(moved) > MAX_LINES_LOGGED:
            logger.info("and %d more routes changed", len(moved) - MAX_LINES_LOGGED)
        return changed
