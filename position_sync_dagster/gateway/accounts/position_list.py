"""The list of all positions: one request at a time, and when one that empties an account counts."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Set
from typing import NamedTuple

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


class _FirstList(NamedTuple):
    """The first list that emptied an account: when it came, and whether a second one may count."""

    at_s: float
    counts: bool


class EmptiedAccounts:
    """Decides when a list of positions that names no holding of an account closes its holdings.

    After a restart, gateways have answered with a list that ends properly and is empty (thetagang
    issues/272). Therefore such a list does not count by itself: the holdings stay as they were
    until a second one, `second_s` later, says the same. After a row of an open holding of the
    account, or an interruption, the next such list is a first one again. A list that names a
    holding, or messages that close each of them, end the doubt.

    Args:
        second_s: How much later a second list counts, in seconds; it is due then.
        monotonic: The clock of this time, in seconds.

    >>> now = iter([0.0, 10.0, 30.0])
    >>> emptied = EmptiedAccounts(second_s=30.0, monotonic=lambda: next(now))
    >>> for _ in range(3):
    ...     emptied.take_list({"DU1", "DU2"}, {"DU2"})
    ...     print("DU1" in emptied)
    True
    True
    False
    """

    def __init__(self, *, second_s: float, monotonic: Callable[[], float]) -> None:
        self._second_s = second_s
        self._monotonic = monotonic
        self._first: dict[str, _FirstList] = {}
        self._listed = False

    def __contains__(self, account: object) -> bool:
        """Return whether the holdings of an account are in doubt."""
        return account in self._first

    def __iter__(self) -> Iterator[str]:
        """Iterate over the accounts whose holdings are in doubt."""
        return iter(self._first)

    @property
    def is_due(self) -> bool:
        """Return whether a second list should be requested now."""
        now = self._monotonic()
        return any(now - first.at_s >= self._second_s for first in self._first.values())

    def take_list(self, held: Set[str], named: Set[str]) -> None:
        """Take a whole list; the holdings of accounts that are in doubt afterwards stay open.

        Args:
            held: The accounts with open holdings.
            named: Those of which the list names one.
        """
        now, doubted = self._monotonic(), {}
        for account in held - named:
            first = self._first.get(account)
            if first is None or not first.counts:
                doubted[account] = _FirstList(now, counts=True)
            elif now - first.at_s < self._second_s:
                doubted[account] = first
        self._first, self._listed = doubted, True

    def recall(self, ages_s: Mapping[str, float]) -> None:
        """Continue from lists of an earlier connection; a list of this one says more.

        Args:
            ages_s: The accounts that these lists emptied, each with the age in seconds.
        """
        if not self._listed:
            now = self._monotonic()
            self._first = {name: _FirstList(now - s, counts=True) for name, s in ages_s.items()}

    def take_back(self, account: str | None = None) -> None:
        """Make the next list that empties an account, by default any, a first one again."""
        for name in self._first.keys() if account is None else {account} & self._first.keys():
            self._first[name] = self._first[name]._replace(counts=False)

    def settle(self, account: str) -> None:
        """End the doubt: messages have closed each holding of the account."""
        self._first.pop(account, None)


def _retrieve(listing: asyncio.Future[list[Position]]) -> None:
    """Take the error of a list that nobody waits for any more; asyncio would log it."""
    if not listing.cancelled():
        listing.exception()
