"""The set of the market data lines of a login: which are to be held, or requested again.

What one line does is in `domain/line.py`, who gets one in `domain/line_allocation.py`. A demand is
a contract that is to have a line: a leg, or the underlying of options that need its price for their
greeks. A denial is a refusal of live data, which counts for some time. A suspect line seems dead,
and is requested again. Times are seconds of a monotonic clock that the caller reads, unless they
are called a moment.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.line import Denial, Line
from position_sync_dagster.domain.line_allocation import Demand, LineLimit, allocate_lines, rank
from position_sync_dagster.domain.quote import Quote

# The number of suspect lines requested again in one step: each takes two of the 50 messages that a
# gateway takes in a second, and account requests need some of them too.
RENEWALS_AT_ONCE = 10


@dataclass(eq=False, repr=False, kw_only=True)
class LoginLines:
    """Every line that one stream has on its connection: events come in, decisions come out.

    Two loops of the stream use it. Its steps say what is wanted and request or cancel lines
    (`StreamLines`); its flush, each second, says what ticked (`ticked`, of `StreamPricer`).
    Silence is a sign of a fault only while the contract of a line trades. What else uses the
    connection, as a trial of a line, may have lines too.

    Args:
        session_open: Whether a contract trades now, by conid; true where that is not known.
        limit: The number of lines of the login.
        min_hold_s: How long a line is kept at least.

    Attributes:
        limit: The number of lines, as configured or learned.
        wanted: conid → its demand.

    >>> from position_sync_dagster.domain.retry import Backoff
    >>> lines = LoginLines(
    ...     session_open=lambda conid: conid != 2, min_hold_s=5.0,
    ...     limit=LineLimit(configured=100, reserve=5, wait=Backoff(first_s=60, longest_s=900)),
    ... )
    >>> for conid in (1, 2):
    ...     lines.put(conid, lines.line(conid).requested(0.0))
    >>> lines.ticked({}, 31.0)
    >>> lines.take_due_for_renewal(31.0)
    [1]
    """

    session_open: Callable[[int], bool]
    limit: LineLimit
    min_hold_s: float

    def __post_init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget every line: they ended with their connection. The limit stays."""
        self._lines: dict[int, Line] = {}  # also those that were cancelled or refused
        self.wanted: dict[int, Demand] = {}

    def line(self, conid: int) -> Line:
        """Return the line of a contract, an idle one where it has none."""
        return self._lines.get(conid) or Line()

    @property
    def held(self) -> dict[int, float]:
        """The conids that hold a line, and since when."""
        return {
            conid: line.held_since_s
            for conid, line in self._lines.items()
            if line.held_since_s is not None
        }

    def is_underlying(self, conid: int) -> bool:
        """Return whether a contract is wanted as an underlying alone, and not as a leg."""
        demand = self.wanted.get(conid)
        return demand is not None and demand.options > 0  # 0 of a leg

    # Events.

    def put(self, conid: int, line: Line) -> None:
        """Replace the line of a contract: an event happened to it."""
        self._lines[conid] = line

    def happened(self, event: Callable[[Line], Line]) -> None:
        """Replace every line by what an event of the whole connection makes of it.

        Args:
            event: Such as `Line.reopened`, `interrupted` or `restored`, with its time.
        """
        self._lines = {conid: event(line) for conid, line in self._lines.items()}

    def ticked(self, quotes: Mapping[int, Quote | None], now_s: float) -> None:
        """Record which lines ticked since the last flush, and that time passed.

        Args:
            quotes: conid → quote of the lines that ticked; None of one that has ended since.
            now_s: The time.
        """
        for conid, quote in quotes.items():
            line = self._lines.get(conid)
            if line is not None and quote is not None:
                self._lines[conid] = line.heard(quote)

        for conid, line in self._lines.items():
            if line.is_awaited:
                self._lines[conid] = line.elapsed(now_s, session_open=self.session_open(conid))

    # Requests that are due.

    def chosen(self, in_use: int, now_s: float) -> frozenset[int]:
        """Return the conids that are to hold a line now.

        A denied contract is not among them, unless it may have delayed data.

        Args:
            in_use: All lines of the connection: a program that shares it may have subscribed to
                others than these.
            now_s: The time.
        """
        held = self.held
        of_others = max(0, in_use - len(held))
        denials = self.denials(now_s)
        wanted = [
            demand
            for conid, demand in self.wanted.items()
            if conid not in denials or denials[conid].may_be_delayed
        ]
        return allocate_lines(
            wanted,
            held,
            budget=self.limit.lines - self.limit.reserve - of_others,
            now=now_s,
            min_hold_s=self.min_hold_s,
        )

    def in_order(self, conids: Iterable[int]) -> list[int]:
        """Return wanted conids in the order in which their lines are requested."""
        held = self.held
        return sorted(conids, key=lambda conid: rank(self.wanted[conid], held))

    def due_for_live(self, now_s: float) -> list[int]:
        """Return the lines with delayed data for which live data may be requested again."""
        delayed = {conid for conid, line in self._lines.items() if line.held and line.delayed}
        return sorted(delayed - self.denials(now_s).keys())

    def take_due_for_renewal(self, now_s: float) -> list[int]:
        """Return the lines to request again now; they count as requested then.

        They are few at once (`RENEWALS_AT_ONCE`), since the gateway takes 50 messages in a second.
        """
        due = [
            conid
            for conid, line in self._lines.items()
            if line.suspect
            and line.is_due_for_renewal(now_s, session_open=self.session_open(conid))
        ]
        due.sort(key=lambda conid: self._lines[conid].renew_at_s)

        renewed = due[:RENEWALS_AT_ONCE]
        for conid in renewed:
            self._lines[conid] = self._lines[conid].renewed(now_s)
        return renewed

    # Denials.

    def deny(self, conid: int, denial: Denial, now_s: float) -> Denial:
        """Record a refusal of live data; return it with its count, and until when it counts.

        Args:
            conid: The contract.
            denial: The refusal, not counted yet: `Line.denial_counted_on` adds those before it.
            now_s: The time.
        """
        line = self.line(conid)
        denial = line.denial_counted_on(denial, now_s)
        self._lines[conid] = replace(line, denial=denial)
        return denial

    def lift(self, code: int | None, now_s: float, only: Collection[int] | None = None) -> None:
        """End the denials with a code, whose cause is gone: a farm is back, or details are here.

        Args:
            code: That of the gateway; None of contracts without details.
            now_s: The time.
            only: Only of these contracts; by default of all.
        """
        for conid, denial in self.denials(now_s).items():
            if denial.code == code and (only is None or conid in only):
                # The record stays: a refusal that comes soon after counts on from it.
                self._lines[conid] = replace(
                    self._lines[conid], denial=replace(denial, until_s=now_s)
                )

    def denied_with(self, code: int | None, now_s: float) -> list[int]:
        """Return the contracts whose denial has this code."""
        return [conid for conid, denial in self.denials(now_s).items() if denial.code == code]

    def denials(self, now_s: float) -> dict[int, Denial]:
        """Return the contracts that may not have live data now, each with the reason."""
        return {
            conid: denial
            for conid, line in self._lines.items()
            if (denial := line.denied(now_s)) is not None
        }

    def suspects(self) -> dict[str, list[int]]:
        """Return the contracts whose lines are suspect, by the reason."""
        suspect = sorted(conid for conid, line in self._lines.items() if line.suspect)
        return grouped(lambda conid: self._lines[conid].reason or "", suspect)
