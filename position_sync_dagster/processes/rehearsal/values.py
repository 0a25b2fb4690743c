"""Our values and greeks beside the broker's own, as parts of one, with what they hang on."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from math import isfinite, log
from typing import NamedTuple

from polars import DataFrame, col

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.instrument import TERMS, Instrument
from position_sync_dagster.gateway.wire import UNSET
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.risk.terms import (
    ModelledLeg,
    OptionTerms,
    compute,
    dated_dividends,
    option_terms,
)
from position_sync_dagster.processes.rehearsal.report import Compared, counted, measured
from position_sync_dagster.settings import Settings

# Greatest difference at p95 that is good: of values as a part, of delta absolute.
WITHIN = (0.0, 0.05)

# How far apart two values are compared.
TOGETHER = "2s"

# The columns of our rows.
COMPARED = (
    *("account", "conid", "timestamp", "market_value", "sec_type", "price_kind"),
    *("strike", "underlying_price", "expiry"),
)

# Bounds of the distance of a strike from the price, and of the days to the expiry.
MONEYNESS = {0.02: "at the money", 0.1: "near it", float("inf"): "far from it"}
DAYS = {7: "up to a week", 45: "up to 45 days", float("inf"): "longer"}


class BrokerValue(NamedTuple):
    """What the broker said of the value of a holding, and when."""

    source: str
    account: str
    conid: int
    timestamp: datetime
    value: float


class BrokerValues:
    """Keeps the broker's own values, as a listener; only parts of one leave it.

    Attributes:
        held: The fields of the newest row of each holding.
        listed: Set when a list of positions has ended.
        differences: By what was compared, and what it hangs on.
    """

    def __init__(self, clock: Clock = utc_now) -> None:
        self.held: dict[Key, Sequence[str]] = {}
        self.listed = asyncio.Event()
        self.differences = defaultdict[tuple[str, str], list[float]](list)
        self._clock = clock
        self._values: list[BrokerValue] = []
        self._models: dict[tuple[int, int], tuple[datetime, list[float]]] = {}
        self._requests: dict[str, tuple[str, int]] = {}
        self._daily: dict[Key, float] = {}
        self._of_accounts: dict[str, float] = {}
        self._resets: Counter[str] = Counter()
        self._zones: set[float] = set()

    def __call__(self, from_client: bool, fields: Sequence[str]) -> None:
        """Take a message; what cannot be read is for `Heard` to count."""
        with suppress(ValueError, IndexError, KeyError):
            match fields[0]:
                case "1" if from_client:
                    self._requests[fields[2]] = ("", int(fields[3]))
                case "92" | "94" if from_client:
                    self._requests[fields[1]] = (fields[2], int("".join(fields[4:5]) or 0))
                case _ if not from_client:
                    self._take(fields, self._clock())

    def _take(self, fields: Sequence[str], now: datetime) -> None:
        match fields[0]:
            case "61":
                self.held[fields[2], int(fields[3])] = (*fields,)
            case "62":
                self.listed.set()
            case "8":
                hours, minutes = map(int, fields[2].split(":"))
                quarters = round((60 * (hours - now.hour) + minutes - now.minute) / 15)
                self._zones.add((quarters / 4 + 12) % 24 - 12)
            case "7":
                self._take_row(fields, now)
            case "21" if fields[2] in ("13", "83"):
                _account, conid = self._requests[fields[1]]
                self._models[conid, int(now.timestamp() // 60)] = (now, [*map(float, fields[4:])])
            case "94":
                self._compare_account(self._requests[fields[1]][0], float(fields[2]))
            case "95":
                key = self._requests[fields[1]]
                self._values.append(BrokerValue("PnLSingle", *key, now, float(fields[6])))
                daily = float(fields[3])
                if not daily and self._daily.get(key):
                    self._resets[f"{now:%H:%M} UTC"] += 1
                self._daily[key] = daily
            case _:
                pass

    def _take_row(self, fields: Sequence[str], now: datetime) -> None:
        """Compare the numbers of a portfolio row with each other."""
        held, price, value, cost, unrealized = map(float, fields[13:18])
        if not (held and price and value):
            return
        key = (fields[19], int(fields[2]))
        self._values.append(BrokerValue("portfolio row", *key, now, value))
        per_unit = value / (held * price * float(fields[8] or 1))
        self.differences["multiplier", fields[4]].append(per_unit - 1)
        if cost and max(abs(cost), abs(unrealized)) < UNSET:
            paid = (value - unrealized) / (held * cost)
            self.differences["average cost", fields[4]].append(paid - 1)

    def _compare_account(self, account: str, daily: float) -> None:
        """Compare the profit of an account with those of its holdings, if all are known."""
        keys = [key for key, row in self.held.items() if key[0] == account and float(row[14])]
        moves = [self._daily[key] for key in keys]
        # The holdings follow their account, or come before it: the nearer of two counts.
        gaps = [abs(sum(moves) - told) for told in (daily, self._of_accounts.get(account, daily))]
        self._of_accounts[account] = daily
        size = sum(map(abs, moves))
        if 0 < size < UNSET:
            self.differences["daily profit", "account and holdings"].append(min(gaps) / size)

    def lines(self, lake: MoneyLake, settings: Settings) -> Iterator[Compared]:
        """Yield what was compared; blocks."""
        self._compare_values(lake)
        self._compare_greeks(lake, settings)
        for (about, text), several in sorted(self.differences.items()):
            if parts := [abs(part) for part in several if isfinite(part)]:
                yield measured(about, text, parts, WITHIN)
        zones = ", ".join(f"{zone:+g} h from UTC" for zone in sorted(self._zones))
        yield counted("zone of account times", zones, len(self._zones), wrong=0)
        most = [at for at, count in self._resets.items() if 2 * count > max(2, len(self._daily))]
        yield counted("most daily profits became 0", ", ".join(most), len(most), wrong=0)

    def _compare_values(self, lake: MoneyLake) -> None:
        """Compare the rows of lines with what the broker said at about the same time."""
        broker = DataFrame(
            self._values, schema=BrokerValue._fields, orient="row", infer_schema_length=None
        )
        rows = lake.updates.table.rows(col.value_source == "TICK", columns=COMPARED)
        if broker.is_empty() or rows.is_empty():
            return
        pairs = broker.with_columns(col.timestamp.cast(rows.schema["timestamp"])).sort("timestamp")
        pairs = pairs.join_asof(
            rows.sort("timestamp"), on="timestamp", by=["account", "conid"], tolerance=TOGETHER,
            strategy="nearest", check_sortedness=False,
        )  # fmt: skip

        for row in pairs.drop_nulls("market_value").iter_rows(named=True):
            text = f"{row['sec_type']}, {row['price_kind']}"
            if row["strike"] and row["underlying_price"] and row["expiry"]:
                days = (row["expiry"] - row["timestamp"].date()).days
                text += f", {_hangs_on(row['strike'] / row['underlying_price'], days)}"
            if row["value"] and row["value"] < UNSET:
                part = row["market_value"] / row["value"] - 1
                self.differences[f"value to {row['source']}", text].append(part)

    def _compare_greeks(self, lake: MoneyLake, settings: Settings) -> None:
        """Compute the greeks of each model tick from its own price, by our model."""
        details = lake.contracts.get({conid for conid, _minute in self._models})
        dividends = dated_dividends(lake.dividends.current())
        for (conid, _minute), (at, told) in self._models.items():
            contract = details.get(conid)
            if contract is None or not all(map(isfinite, told)) or max(told) >= UNSET:
                continue
            names = (*TERMS, "local_symbol", "trading_class")
            terms = option_terms(
                Instrument(**{name: getattr(contract, name) for name in names}),
                contract,
                dict(settings.interest_rates),
                dividends.get(contract.under_conid or 0),
            )
            _vol, delta, price, _dividend, _gamma, vega, theta, spot = told
            if not isinstance(terms, OptionTerms) or min(spot, price) <= 0:
                continue

            unit = contract.price_magnifier
            leg = ModelledLeg(
                conid=conid, terms=terms, underlying=0, value=price / unit, value_at=at,
                spot_then=spot / unit, spot=spot / unit, spot_at=at,
            )  # fmt: skip
            compute([leg], at)
            if leg.greeks is not None:
                text = _hangs_on(terms.strike * unit / spot, (terms.expires_at - at).days)
                self.differences["delta to model ticks", text].append(leg.greeks.delta - delta)
                for name, theirs in (("vega", vega), ("theta", theta)):
                    ours = getattr(leg.greeks, name) * unit
                    part = ours / theirs - 1 if theirs else float("nan")
                    self.differences[f"{name} to model ticks", text].append(part)


def _hangs_on(strike_to_price: float, days: float) -> str:
    away = abs(log(strike_to_price))
    names = [
        next(name for most, name in bounds.items() if value <= most)
        for value, bounds in ((away, MONEYNESS), (days, DAYS))
    ]
    return ", ".join(names)
