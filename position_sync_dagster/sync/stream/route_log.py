"""Changes of route, told and counted, also across a reconnect."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping

from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.sync.owner.metrics import StreamMetrics

logger = logging.getLogger(__name__)

MAX_LINES_LOGGED = 20
"""Changes at once that are logged one by one, before their numbers alone: a line costs milliseconds
in the log of a run."""


class RouteLog:
    """What was last told of each holding's way."""

    def __init__(self, metrics: StreamMetrics) -> None:
        self._metrics = metrics
        self._logged: dict[Key, LegState] = {}

    def record(
        self, routes: Mapping[Key, LegState], reason_for: Callable[[int, LegState], str]
    ) -> None:
        """Log what differs from what was told before, and count promotions and demotions.

        Args:
            reason_for: Gives the reason for a conid's way, in brackets.
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
            logger.info(
                "%s of %s: %s → %s%s", conid, account, before, state, reason_for(conid, state)
            )
        if len(changed) > MAX_LINES_LOGGED:
            summary = ", ".join(f"{n} {before} → {state}" for (before, state), n in counts.items())
            logger.info("%d changes of route in all: %s", len(changed), summary)
