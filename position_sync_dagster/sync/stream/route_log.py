"""Changes of route, told and counted, also across a reconnect."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping

from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.sync.owner.metrics import StreamMetrics

logger = logging.getLogger(__name__)

TOLD_EACH = 20
"""Changes at once that are logged one by one, before their numbers alone: a line costs milliseconds
in the log of a run."""


class RouteLog:
    """What was last told of each holding's way."""

    def __init__(self, metrics: StreamMetrics) -> None:
        self._metrics = metrics
        self._told: dict[Key, LegState] = {}

    def tell(self, routes: Mapping[Key, LegState], why: Callable[[int, LegState], str]) -> None:
        """Log what differs from what was told before, and count promotions and demotions.

        Args:
            why: Gives the reason for a conid's way, in brackets.
        """
        changed = [
            (key, before, state)
            for key, state in routes.items()
            if (before := self._told.get(key)) is not None and before is not state
        ]
        self._told.update(routes)
        ways = Counter((before, state) for _key, before, state in changed)
        self._metrics.promotions += ways[LegState.OVERFLOW, LegState.STREAMED]
        self._metrics.demotions += ways[LegState.STREAMED, LegState.OVERFLOW]
        for (account, conid), before, state in changed[:TOLD_EACH]:
            logger.info("%s of %s: %s → %s%s", conid, account, before, state, why(conid, state))
        if len(changed) > TOLD_EACH:
            told = ", ".join(f"{n} {before} → {state}" for (before, state), n in ways.items())
            logger.info("%d changes of route in all: %s", len(changed), told)
