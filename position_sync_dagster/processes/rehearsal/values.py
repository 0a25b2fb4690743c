"""Our values and greeks beside the broker's own, as parts of one, with what they hang on."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from math import isfinite, log, nan
from typing import Any

from polars import DataFrame, col

from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.exchange_time import exchange_date
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.risk.terms import (
    CONTRACT_FIELDS,
    ModelledLeg,
    OptionTerms,
    compute,
    dated_dividends,
    option_terms,
)
from position_sync_dagster.processes.heard.wire import LEAST_UNSET
from position_sync_dagster.processes.rehearsal.report import Compared, counted, measured
from position_sync_dagster.settings import Settings

# Greatest difference at p95 that is good: of values as a part, of delta absolute.
WITHIN = (0.0, 0.05)

# How far apart two values are compared.
TOGETHER = "2s"

# The columns of what the broker said of a value.
SAID = ("source", "account", "conid", "timestamp", "value")

# Bounds of the distance of a strike from the price, and of the days to the expiry.
MONEYNESS = {0.02: "at the money", 0.1: "near it", float("inf"): "far from it"}
DAYS = {7: "up to a week", 45: "up to 45 days", float("inf"): "longer"}


class BrokerValues:
    """Keeps the broker's own values, as a listener; only parts of one leave it.

    Attributes:
        held: The fields of the newest row of each holding.
        listed: Set when a list of positions has ended.
    """

    def __init__(self, clock: Clock = utc_now) -> None:
        self.held: dict[Key, Sequence[str]] = {}
        self.listed = asyncio.Event()
        self._clock = clock
        self._parts = defaultdict[tuple[str, str], list[float]](list)
        self._values: dict[tuple[object, ...], tuple[object, ...]] = {}
        self._singles: dict[str, Key] = {}
        self._zones: Counter[float] = Counter()

    def __call__(self, from_client: bool, fields: Sequence[str]) -> None:
        """Take a message; what cannot be read is for `Heard` to count."""
        with suppress(ValueError, IndexError, KeyError, ZeroDivisionError):
            match (from_client, fields):
                case (True, ["94", request, account, _, conid, *_]):
                    self._singles[request] = (account, int(conid))
                case (False, ["61", _, account, conid, *_]):
                    self.held[account, int(conid)] = (*fields,)
                case (False, ["62", *_]):
                    self.listed.set()
                case (False, ["7", *_]):
                    self._take_row(fields)
                case (False, ["8", _, clock, *_]):
                    self._take_zone(clock)
                case (False, ["95", request, _, _, _, _, value, *_]):
                    self._take("PnLSingle", self._singles[request], float(value))
                case _:
                    pass

    def _take_zone(self, clock: str) -> None:
        """Count by how many hours, to a quarter, a time of an account is ahead of UTC."""
        hours, minutes = map(int, clock.split(":"))
        now = self._clock()
        ahead = 60 * (hours - now.hour)
        ahead += minutes - now.minute
        zone = round(ahead / 15) / 4
        self._zones[(zone + 12) % 24 - 12] += 1

    def _take(self, source: str, key: Key, value: float) -> None:
        """Keep the newest value of each minute."""
        now = self._clock()
        if 0 < abs(value) < LEAST_UNSET:
            self._values[source, key, now.minute] = (source, *key, now, value)

    def _take_row(self, fields: Sequence[str]) -> None:
        """Compare the numbers of a portfolio row with each other."""
        held, price, value, cost, unrealized = map(float, fields[13:18])
        self._take("portfolio row", (fields[19], int(fields[2])), value)
        multiplier = float(fields[8] or 1)
        sec_type = fields[4]
        per_unit = value / (held * price * multiplier)
        self._parts["multiplier", sec_type].append(per_unit - 1)
        paid = (value - unrealized) / (held * cost)
        self._parts["average cost", sec_type].append(paid - 1)

    def lines(self, lake: MoneyLake, settings: Settings) -> Iterator[Compared]:
        """Yield what was compared; blocks."""
        rows = lake.updates.table.rows(col.value_source == "TICK").sort("timestamp")
        self._compare_values(rows)
        self._compare_greeks(rows, lake, settings)
        reset = self._compare_accounts(lake.account_values.table.rows().sort("timestamp"))
        for (about, text), several in sorted(self._parts.items()):
            if parts := [abs(part) for part in several if isfinite(part)]:
                yield measured(about, text, parts, WITHIN)
        yield reset
        for zone, count in self._zones.most_common(1) or [(0.0, 0)]:
            yield counted("zone of account times", f"{zone:+g} h from UTC", count, wrong=0)

    def _compare_values(self, rows: DataFrame) -> None:
        """Compare the rows of lines with what the broker said at about the same time."""
        broker = DataFrame([*self._values.values()], schema=SAID, orient="row")
        if broker.is_empty() or rows.is_empty():
            return
        broker = broker.cast({"timestamp": rows.schema["timestamp"]}).sort("timestamp")
        pairs = broker.join_asof(
            rows, on="timestamp", by=["account", "conid"], tolerance=TOGETHER, strategy="nearest",
            check_sortedness=False,
        )  # fmt: skip
        for row in pairs.drop_nulls("market_value").iter_rows(named=True):
            about = f"value to {row['source']}"
            text = "{sec_type}, {price_kind}, ".format_map(row) + _hangs_on(row)
            part = row["market_value"] / row["value"] - 1
            self._parts[about, text].append(part)

    def _compare_greeks(self, rows: DataFrame, lake: MoneyLake, settings: Settings) -> None:
        """Compute the greeks of model ticks, by our model, from their volatility and price."""
        is_model = (col.greeks_source == "GATEWAY") & (col.implied_vol > 0)
        minute = col.timestamp.dt.truncate("1m").alias("minute")
        modelled = rows.filter(is_model, col.underlying_price > 0)
        ticks = modelled.group_by("conid", minute).last()
        details = lake.contracts.get(ticks["conid"])
        dividends = dated_dividends(lake.dividends.current())
        rates = dict(settings.interest_rates)

        for row in ticks.iter_rows(named=True):
            contract = details[row["conid"]]
            option = Instrument(**{name: row[name] for name in CONTRACT_FIELDS})
            of_underlying = dividends.get(contract.under_conid or 0)
            terms = option_terms(option, contract, rates, of_underlying)
            at = row["timestamp"]
            if not isinstance(terms, OptionTerms) or terms.expires_at <= at:
                continue

            leg = ModelledLeg(
                conid=option.conid, terms=terms, underlying=0, value_at=at, spot_at=at,
                spot=row["underlying_price"] / contract.price_magnifier,
                volatility=row["implied_vol"],
            )  # fmt: skip
            compute([leg], at)
            if leg.greeks is not None:
                hangs_on = _hangs_on(row)
                gap = leg.greeks.delta - row["delta"]
                self._parts["delta to model ticks", hangs_on].append(gap)
                for name in ("vega", "theta"):
                    part = getattr(leg.greeks, name) / (row[name] or nan) - 1
                    self._parts[f"{name} to model ticks", hangs_on].append(part)

    def _compare_accounts(self, accounts: DataFrame) -> Compared:
        """Compare the daily profit of accounts with that of their holdings; find its reset."""
        is_whole = (col.open_unknown == 0) & (col.realized_pnl.fill_null(0) == 0)
        whole = accounts.filter(is_whole & (col.daily_pnl != 0))
        parts = (whole["open_pnl"] / whole["daily_pnl"] - 1).drop_nulls()
        self._parts["daily profit", "holdings to account"].extend(parts)

        was_reset = (col.daily_pnl == 0) & (col.daily_pnl.shift().over("account") != 0)
        times = sorted({f"{at:%H:%M} UTC" for at in accounts.filter(was_reset)["timestamp"]})
        return counted("reset of the daily profit", ", ".join(times), len(times), wrong=0)


def _hangs_on(row: dict[str, Any]) -> str:
    """Return how far a row is from its strike and from its expiry; nothing of other types."""
    strike, price, expiry = row["strike"], row["underlying_price"], row["expiry"]
    if not (strike and price and expiry):
        return ""
    days = (expiry - exchange_date(row["timestamp"])).days
    away = abs(log(strike / price))
    return f"{_range_of(away, MONEYNESS)}, {_range_of(days, DAYS)}"


def _range_of(value: float, bounds: Mapping[float, str]) -> str:
    """Return the name of the first bound that a value does not exceed; the last has no end."""
    return next(name for most, name in bounds.items() if value <= most)
