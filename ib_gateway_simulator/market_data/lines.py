"""Market data lines: which requests stream, counted as a gateway counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ib_gateway_simulator.clients.connection import ClientConnection
from ib_gateway_simulator.market.quote import Quote
from ib_gateway_simulator.protocol.contract import Contract


@dataclass(slots=True, kw_only=True)
class Line:
    """One running market data request.

    `last` is the quote that its client has seen. While its ticks are restricted to some kinds,
    `last` stays, and `last_restricted` is the quote of which the client has seen these kinds.
    """

    client: ClientConnection
    req_id: int
    contract: Contract
    mark: bool
    delayed: bool
    greeks: bool
    snapshot: bool
    dividends: bool = False
    last: Quote | None = None
    last_restricted: Quote | None = None
    # Whether the line is granted and counted, but never speaks.
    silent: bool = False


class Lines:
    """Every line of the login, shared by all its clients.

    A second request for the same contract is another line: no source was found that says that a
    gateway merges them, so this is the worst case.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # The largest number of lines that were in use at one time.
        self.peak = 0
        self._lines: dict[tuple[ClientConnection, int], Line] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Line]:
        return iter(list(self._lines.values()))

    @property
    def full(self) -> bool:
        """Whether a further request must be refused."""
        return len(self._lines) >= self.limit

    def get(self, client: ClientConnection, req_id: int) -> Line | None:
        """Return the line of a request, or None."""
        return self._lines.get((client, req_id))

    def add(self, line: Line) -> None:
        """Count a line as in use."""
        self._lines[line.client, line.req_id] = line
        self.peak = max(self.peak, len(self._lines))

    def remove(self, client: ClientConnection, req_id: int) -> Line | None:
        """Free one line and return it; return None when the id has none."""
        return self._lines.pop((client, req_id), None)

    def remove_all(self, client: ClientConnection | None = None) -> None:
        """Free every line of one client, or of all."""
        for key in [key for key in self._lines if client in (None, key[0])]:
            del self._lines[key]

    def set_silent(self, silent: bool, concerns: Callable[[Contract], bool]) -> int:
        """Silence the running lines of some contracts, or let them speak; return how many."""
        lines = [line for line in self._lines.values() if concerns(line.contract)]
        for line in lines:
            line.silent = silent
        return len(lines)

    @property
    def silent(self) -> int:
        """How many lines are granted and do not speak."""
        return sum(line.silent for line in self._lines.values())

    def by_conid(self) -> dict[str, int]:
        """Return the number of lines per conid."""
        counts = Counter(line.contract.conid for line in self._lines.values())
        return {str(conid): count for conid, count in sorted(counts.items())}
