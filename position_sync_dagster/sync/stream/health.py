"""The state of the stream, and the reason for it."""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime

from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.errors import LakeError
from position_sync_dagster.gateway.codes import FARM_BROKEN, farm_of
from position_sync_dagster.outage_log import OutageLog

logger = logging.getLogger(__name__)


class Health:
    """STARTING, LIVE, BLIND (no gateway) or ENDED, and what a person should know about it.

    Args:
        on_change: Called at each change, so that the session shows it at once.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.state = SessionState.STARTING
        self.live_since: datetime | None = None
        self._on_change = on_change
        self._gateway = OutageLog(logger)
        self._registry = OutageLog(logger)
        self._broken_farms: set[str] = set()

    def detail(self, problems: Iterable[str]) -> str | None:
        """Return why the stream is BLIND, or what it cannot stream while it is LIVE.

        Args:
            problems: The legs without live data, each with its reason.
        """
        if self.state is not SessionState.LIVE:
            return self._gateway.fault
        found = [f"data farm {farm} is broken" for farm in sorted(self._broken_farms)]
        found += [self._registry.fault] if self._registry.fault else []
        return "; ".join([*found, *problems]) or None

    def live(self, since: datetime) -> None:
        """Record that the gateway is there.

        Args:
            since: Since when: what the broker confirmed from then on is current.
        """
        self.state, self.live_since = SessionState.LIVE, since
        self._gateway.clear()
        self._on_change()

    def blind(self, reason: str) -> bool:
        """Record that the gateway is not there, and return whether that is new."""
        new = self._gateway.report(
            reason, text=f"the stream is BLIND: {reason}", level=logging.WARNING
        )
        self.state = SessionState.BLIND
        self._on_change()
        return new

    def ended(self) -> None:
        """Record the end of the stream."""
        self.state = SessionState.ENDED

    def connected(self, broken_farms: Iterable[str] = ()) -> None:
        """Replace the broken farms by those that a new connection reported until now."""
        self._broken_farms = set(broken_farms)

    def farm(self, code: int, text: str) -> None:
        """Record what the gateway reports of one of its data farms."""
        name = farm_of(text)
        (self._broken_farms.add if code in FARM_BROKEN else self._broken_farms.discard)(name)
        self._on_change()

    def registry_failed(self, error: LakeError) -> None:
        """Record that the registry cannot be read."""
        text = f"the legs known so far stay active: {error}"
        if self._registry.report(error.what, text=text):
            self._on_change()

    def registry_works(self) -> None:
        """Record that the registry was read."""
        if self._registry.fault is not None:
            self._registry.clear()
            self._on_change()
