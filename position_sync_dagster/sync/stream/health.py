"""What the stream says of itself: its state, and why."""

import logging
import re
from collections.abc import Callable, Iterable

from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.gateway.codes import FARM_BROKEN

logger = logging.getLogger(__name__)


class Health:
    """STARTING, LIVE, BLIND (no gateway) or ENDED, and what a person should know of it.

    Args:
        on_change: Called at each change, so that it is told at once.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.state = SessionState.STARTING
        self._on_change = on_change
        self._reason: str | None = None
        self._farms: set[str] = set()
        self._registry_error: str | None = None

    def detail(self, problems: Iterable[str]) -> str | None:
        """Tell why the stream is BLIND, or what it cannot stream while it is LIVE.

        Args:
            problems: What the lines have to say.
        """
        if self.state is not SessionState.LIVE:
            return self._reason
        texts = [f"data farm {farm} is broken" for farm in sorted(self._farms)]
        texts += [self._registry_error] if self._registry_error else []
        return "; ".join([*texts, *problems]) or None

    def live(self) -> None:
        """Note that the gateway is there."""
        self.state, self._reason = SessionState.LIVE, None
        self._on_change()

    def blind(self, reason: str) -> bool:
        """Note that it is not, and log it; tell whether that is new."""
        new = self.state is not SessionState.BLIND or self._reason != reason
        if new:
            logger.warning("blind: %s", reason)
        self.state, self._reason = SessionState.BLIND, reason
        self._on_change()
        return new

    def ended(self) -> None:
        """Note the end."""
        self.state = SessionState.ENDED

    def connected(self) -> None:
        """Start anew on a new connection: what broke is told again."""
        self._farms.clear()

    def farm(self, code: int, text: str) -> None:
        """Note what the gateway says of one of its data farms."""
        name = re.split("[:.]", text)[-1]
        (self._farms.add if code in FARM_BROKEN else self._farms.discard)(name)
        self._on_change()

    def registry(self, error: str | None) -> bool:
        """Note whether the registry can be read; tell whether that is new."""
        new = error != self._registry_error
        self._registry_error = error
        if new:
            self._on_change()
        return new
