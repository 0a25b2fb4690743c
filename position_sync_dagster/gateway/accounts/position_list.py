"""The list of all positions: one request at a time, and none mistaken for another."""

import asyncio
import time
from collections.abc import Callable

from ib_async import IB, Position

from position_sync_dagster.errors import GatewayLostError, GatewayTimeoutError
from position_sync_dagster.settings import Settings


class PositionList:
    """Requests the list of all positions, and decides when it is due again.

    Messages of positions do not name their request, and ib_async ends whatever request it waits
    for at any end message (2.1.0, wrapper.py). So no list is requested while another one is under
    way, and one that timed out ends the connection: its late rest would pass for the whole answer
    of the next request.

    Args:
        give_up: Called with the reason when the connection must not be used any more.
    """

    def __init__(
        self,
        ib: IB,
        *,
        settings: Settings,
        give_up: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ib = ib
        self._gateway_id = settings.gateway_id
        self._timeout_s = settings.gateway_timeout_s
        self._interval_s = settings.positions_interval_s
        self._give_up = give_up
        self._monotonic = monotonic
        self._listing: asyncio.Future[list[Position]] | None = None
        self._listed_at = monotonic()
        self._requested = False

    @property
    def is_due(self) -> bool:
        """Return whether the positions should be listed again, as a second opinion."""
        return self._requested or self._monotonic() - self._listed_at >= self._interval_s

    def request(self) -> None:
        """Make the list due: what came since the last one may not be all."""
        self._requested = True

    @property
    def is_awaited(self) -> bool:
        """Return whether a list is under way, or has ended and was not taken yet."""
        return self._listing is not None

    def accepted(self) -> None:
        """Record that a whole list was used."""
        self._listed_at = self._monotonic()

    async def abandoned(self) -> None:
        """Wait for the end of a list whose request was cancelled, and ignore its rows.

        Raises:
            GatewayError: As `fetch`.
        """
        if self._listing is not None:
            await self.fetch()

    async def fetch(self) -> list[Position]:
        """Wait for the list that is under way; request one where there is none.

        Raises:
            GatewayTimeoutError: No end message came; the connection is given up.
            GatewayLostError: The connection ended.
        """
        try:
            listing = self._listing
            if listing is None:
                listing = self._listing = asyncio.ensure_future(self._ib.reqPositionsAsync())
                listing.add_done_callback(_retrieve)
                self._requested = False
            await asyncio.wait({listing}, timeout=self._timeout_s)
            if listing.done():
                self._listing = None
                return listing.result()
        except ConnectionError as error:
            self._listing = None
            raise self._lost() from error
        if not self._ib.isConnected():
            raise self._lost()
        timeout = GatewayTimeoutError(
            f"The gateway at {self._gateway_id} did not give the positions whole.",
            remedy="It is asked again on a new connection. If this goes on, raise "
            "POSITION_SYNC_GATEWAY_TIMEOUT_S.",
        )
        self._give_up(timeout.what)
        raise timeout

    def _lost(self) -> GatewayLostError:
        return GatewayLostError(
            f"The connection to {self._gateway_id} ended while the positions were awaited.",
            remedy="It is tried again.",
        )


def _retrieve(listing: asyncio.Future[list[Position]]) -> None:
    """Take the error of a list that nobody waits for any more; asyncio would log it."""
    if not listing.cancelled():
        listing.exception()
