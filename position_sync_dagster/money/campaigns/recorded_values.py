"""What was recorded of contracts: values and greeks of past days, and those of the ledger."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain
from typing import Any

import polars as pl
from polars import col

from position_sync_dagster.domain.holding import Key, grouped
from position_sync_dagster.lake.schema import DAILY_POSITIONS, one_of
from position_sync_dagster.money.campaigns.campaigns import Contracts, Lots
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.movements import known_sum, rounded, times

# How far from a trade a row of the ledger may be whose greeks are those of the trade.
NEAR = timedelta(hours=1)

# How often a day the values of the ledger are looked at: each five minutes.
LOOKS_A_DAY = 288

_GREEKS = ("delta", "vega", "theta", "implied_vol")
_DAILY = ["session_date", "account", "conid", "position", "market_value", "timestamp", *_GREEKS]


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignGreeks:
    """The greeks of what a campaign had at a moment; None: not known.

    Attributes:
        age_s: How far the oldest of them is from the moment, in seconds.
        why: Why they are not known.
    """

    delta: float | None = None
    vega: float | None = None
    theta: float | None = None
    implied_vol: float | None = None
    age_s: float | None = None
    why: str | None = None


# A row of the ledger or of a past day: its time, and the greeks of one unit.
_Row = tuple[datetime, float | None, float | None, float | None, float | None]


@dataclass(eq=False, repr=False)
class RecordedValues:
    """The values and greeks that were recorded of some contracts.

    Attributes:
        quantities: The position of each holding on each recorded day.
    """

    lake: MoneyLake
    conids: Collection[int]
    quantities: dict[Key, dict[date, float]] = field(default_factory=dict, init=False)
    _units: dict[tuple[str, int, date], float] = field(default_factory=dict, init=False)
    _rows: defaultdict[Key, list[_Row]] = field(
        default_factory=lambda: defaultdict(list), init=False
    )

    def __post_init__(self) -> None:
        table = self.lake.derived_table(DAILY_POSITIONS)
        if not table.exists():
            return
        rows = table.rows(one_of("conid", self.conids), columns=_DAILY).sort("session_date")
        for day, account, conid, position, value in rows.select(_DAILY[:5]).iter_rows():
            self.quantities.setdefault((account, conid), {})[day] = position
            if position and value is not None:
                self._units[account, conid, day] = value / position
        self._add_rows(rows.drop_nulls("timestamp"))

    def _add_rows(self, rows: pl.DataFrame) -> None:
        """Keep the rows that have greeks."""
        with_greeks = rows.drop_nulls("delta").select("account", "conid", "timestamp", *_GREEKS)
        for account, conid, *row in with_greeks.iter_rows():
            self._rows[account, conid].append(tuple(row))

    def read_moments(self, moments: Iterable[tuple[datetime, Iterable[int]]]) -> None:
        """Read what the ledger has around some times of some contracts."""
        updates = self.lake.updates.sync
        recorded_days = updates.days()
        for day, of_day in grouped(lambda moment: moment[0].date(), moments).items():
            if day in recorded_days:
                times = [at for at, _conids in of_day]
                conids = set(chain.from_iterable(conids for _at, conids in of_day))
                self._add_rows(updates.between(min(times) - NEAR, max(times) + NEAR, conids))

        for rows_of_holding in self._rows.values():
            rows_of_holding.sort(key=lambda row: row[0])

    def value_of(self, held: Mapping[Key, float], day: date) -> float | None:
        """Return the value of some quantities at the close of a day; None: not known."""
        return known_sum(
            times(self._units.get((account, conid, day)), quantity)
            for (account, conid), quantity in held.items()
            if rounded(quantity)
        )

    def greeks_of(
        self,
        account: str,
        lots: Lots,
        contracts: Contracts,
        at: datetime,
    ) -> CampaignGreeks:
        """Return the greeks of lots at a time; of what is no option delta alone."""
        sums: dict[str, Any] = dict.fromkeys(("delta", "vega", "theta"), 0.0)
        weights = 0.0
        volatility = 0.0
        age_s = 0.0
        for conid, quantity in lots.items():
            contract = contracts[conid]
            if contract.instrument is None:
                return CampaignGreeks(why=f"the terms of {contract.name} are not known")
            units = quantity * contract.instrument.multiplier
            if contract.instrument.right is None:
                sums["delta"] += units
                continue

            row = self._nearest(account, conid, at)
            if row is None or None in row:
                return CampaignGreeks(why=f"none of {contract.name} were recorded")
            seen_at, delta, vega, theta, implied_vol = row
            sums["delta"] += units * delta  # type: ignore[operator]
            sums["vega"] += units * vega  # type: ignore[operator]
            sums["theta"] += units * theta  # type: ignore[operator]
            weight = abs(units * vega)  # type: ignore[operator]
            weights += weight
            volatility += weight * implied_vol  # type: ignore[operator]
            age_s = max(age_s, abs((at - seen_at).total_seconds()))

        mean = volatility / weights if weights else None
        return CampaignGreeks(**sums, implied_vol=mean, age_s=age_s)

    def _nearest(self, account: str, conid: int, at: datetime) -> _Row | None:
        rows = self._rows.get((account, conid), [])
        place = bisect_left(rows, at, key=lambda row: row[0])
        near = rows[max(0, place - 1) : place + 1]
        return min(near, key=lambda row: abs(row[0] - at), default=None)

    def units_of_days(self, conids_on: Mapping[date, Collection[int]]) -> Iterator[pl.DataFrame]:
        """Yield, for each day of the ledger, what one unit was worth, each five minutes.

        Args:
            conids_on: The contracts that are wanted, by UTC day.
        """
        for day in sorted(self.lake.updates.sync.days() & conids_on.keys()):
            begin = datetime.combine(day, time(), UTC)
            rows = self.lake.updates.sync.sampled(
                conids_on[day], begin, begin + timedelta(days=1), LOOKS_A_DAY
            )
            held = rows.filter(col.position != 0, col.market_value.is_not_null())
            unit = col.market_value / col.position
            yield held.select("account", "conid", "timestamp", "slot", unit=unit)
