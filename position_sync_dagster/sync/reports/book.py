"""The holdings and strategies at one moment: positions, and every sum of money and greeks.

The sums are by strategy, account, underlying and expiry. Different currencies are never added: each
sum has one currency. The curves are the profit of the day over the last hours, from the ledger.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any

import polars as pl

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.causes import A_DAY
from position_sync_dagster.domain.clock import SKEW, seconds_since
from position_sync_dagster.domain.contract_match import contract_mismatch
from position_sync_dagster.domain.instrument import ContractDetails, leg_name
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.domain.position_update import Source
from position_sync_dagster.domain.rules import exchange_date
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.lake import NO_HOLDINGS, Lake, Past
from position_sync_dagster.lake.schema import moment
from position_sync_dagster.risk.campaigns import open_profit
from position_sync_dagster.risk.scenario_file import ScenariosFileError, folder_of, read_scenarios
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import confirmations
from position_sync_dagster.sync.confirmations import CONFIRMED, PRICED
from position_sync_dagster.sync.reports import exposure
from position_sync_dagster.sync.reports.closes import NO_CLOSES, Closes, read_closes
from position_sync_dagster.sync.reports.exposure import Split


def is_leg_of(lake: Lake, strategy: str, legs: Iterable[ActiveContract]) -> pl.Expr:
    """Return the condition that a row belongs to one of these legs, and the leg to the strategy."""
    mine = [leg for leg in legs if leg.strategy_id == strategy]
    known = lake.contracts.get({leg.conid for leg in mine})
    wanted = pl.lit(value=False)
    for leg in mine:
        if not contract_mismatch(leg, known.get(leg.conid)):
            account = pl.col("account") if leg.account is None else pl.lit(leg.account)
            wanted |= (pl.col("conid") == leg.conid) & (pl.col("account") == account)
    return wanted


# Sums in one currency over the known values; None if all are unknown. The names:
#   name: The strategy, UNATTRIBUTED, the underlying, or the name of the total.
#   account: The account of UNATTRIBUTED or of an account's total; None for all accounts.
#   currency: None for legs that are not held and have never been valued.
#   legs, legs_held: The number of active legs, and of those with a holding; each holding that is in
#     no strategy counts as one. For an underlying and for a total, `legs_held` is the number of
#     holdings, each counted once.
#   legs_closed, closed: The number of legs of a strategy that were held and are gone for a known
#     reason, and what happened to them.
#   value: The value of options, stocks and the like, without the notional value of futures.
#   unrealized_pnl, daily_pnl, dollar_delta: As the columns of the ledger.
#   beta_delta: Dollar delta × beta, of the underlyings whose beta is known.
#   gamma_1pct: The change of dollar_delta when the underlyings move by 1 %.
#   theta, vega: Per day, and per point of volatility.
#   oldest_age_s: The age of the oldest price; None without one, or if one is unknown.
#   oldest_greeks_s: The age of the oldest greeks; None without any, or if one is unknown.
#   delayed: The number of holdings with a price of delayed or frozen market data.
#   lines: Market data lines that the holdings use; None while no owner is connected.
#   unvalued: The number of held legs without a value, which the sums leave out.
#   options, options_with_greeks: Held options, and those of them whose greeks are known.
#   options_modelled: Those of the latter whose greeks this package computed.
#   nearest_expiry: The first day on which a holding expires.
#   short_in_money, short_unknown: Short options in the money, and those of which the price of the
#     underlying is not known.
#   differences: Where strategies claim another quantity than is held.
#   realized_pnl: The realised profit of what closed since `realized_since`; None if that of one of
#     the closes is not known, or if no change of a quantity has been recorded yet.
#   closes, closes_without_profit: The number of these closes, and of those without a known profit.
#   campaign: What a strategy has earned since its first leg: `since`; what is closed
#     earned after fees (`realised`), and what is open would (`open`); the `fees` of both; `profit`.
#   unknown: Of how many holdings a sum leaves out the value, by the name of the sum.
#   rates_age_s: For a total in the base currency: the age of the oldest exchange rate used.
#   without_rate: For a total in the base currency: the currencies whose rate is not known. The sums
#     are unknown then.
Sums = dict[str, Any]

# Each sum of money, and its name among the sums of parts.
_NAMES = (
    "unrealized_pnl", "daily_pnl", "dollar_delta", "beta_delta", "gamma_1pct", "theta", "vega",
)  # fmt: skip
_SUMS = {"value": "market_value"} | {name: name for name in _NAMES}

# What is counted, and its name among the sums of parts.
_COUNTS = {
    "delayed": "delayed", "options": "options", "options_with_greeks": "options_with_greeks",
    "options_modelled": "options_modelled", "nearest_expiry": "nearest_expiry",
    "unvalued": "legs_without_value", "short_in_money": "short_legs_in_money",
    "short_unknown": "short_legs_unknown",
}  # fmt: skip


KEY = ("account", "conid")

# The names of sums that are of no strategy and of no underlying.
TOTAL, BASE_TOTAL = "total", "total in base"


_NO_CLOSES: Sums = {
    "realized_pnl": None, "realized_since": None, "campaign": None, "rates_age_s": None,
    "closes": 0, "closes_without_profit": 0, "without_rate": (),
}  # fmt: skip


def _sums(row: Mapping[str, Any], now: datetime, streamed: frozenset[int] | None) -> Sums:
    held = row["holdings"]
    name = row.get("strategy_id") or row.get("symbol") or (row.get("expiry") and f"{row['expiry']}")
    is_total = name is None
    return {
        "name": name or TOTAL,
        "account": row.get("account"),
        "currency": row["currency"],
        "legs": row["legs"] - row["legs_held"] + held if is_total else row.get("legs", held),
        "legs_held": held if is_total else row.get("legs_held", held),
        "legs_closed": 0 if is_total else row.get("legs_closed", 0),
        "closed": None if is_total else row.get("closed"),
        **{name: row[of] for name, of in (_SUMS | _COUNTS).items()},
        "oldest_age_s": seconds_since(row["priced_at"], now),
        "oldest_greeks_s": seconds_since(row["greeks_at"], now),
        "lines": None if streamed is None else len(streamed.intersection(row["conids"] or ())),
        "differences": row.get("differences"),
        **_NO_CLOSES,
        "unknown": {
            name: count
            for name, of in _SUMS.items()
            # Who has no betas misses none.
            if (count := row[f"without_{of}"]) and (name != "beta_delta" or row[of] is not None)
        },
    }


@dataclass(frozen=True, kw_only=True)
class Book:
    """The holdings and the strategies at one moment, as the tables have them.

    Rows stay in columns: those of 20,000 holdings take half a second to become values.

    Attributes:
        now: The moment.
        priced: The newest row of each holding, also of closed ones, with its times
            (`with_priced`).
        legs: The active legs.
        split: The parts of all these holdings.
        reported: What the broker last reported of the followed types: rows of `broker_positions`.
        live_since: For each connected login: values that their source confirmed since then are
            current. It is the start of the connection, at most two refresh intervals ago.
        streamed: The conids whose newest row the stream wrote recently (`written_by`), for logins
            whose owner is connected; None while none is.
        accounts: The newest values of the accounts, with their exchange rates.
        closes: What closed, and why.
        logins: All logins, connected or not.
        unresolved: The strategies with a leg whose contract is not found.
        strategy: The only strategy whose parts are summed; None: all.
    """

    now: datetime
    priced: pl.DataFrame
    legs: tuple[ActiveContract, ...]
    split: Split
    reported: pl.DataFrame = field(default_factory=lambda: NO_HOLDINGS)
    live_since: Mapping[str, datetime] = field(default_factory=dict)
    streamed: frozenset[int] | None = None
    accounts: tuple[AccountSummary, ...] = ()
    closes: Closes = NO_CLOSES
    logins: tuple[str, ...] = ()
    unresolved: frozenset[str] = frozenset()
    strategy: str | None = None

    def of_strategy(self, strategy: str | None) -> "Book":
        """Return the book with the sums of one strategy; None: of all."""
        if strategy is None:
            return self
        own = self.split.filter(pl.col("strategy_id") == strategy)
        return replace(self, split=own, strategy=strategy)

    @cached_property
    def matching(self) -> list[ActiveContract]:
        """The legs that match the contract of their conid, or whose contract is not known yet."""
        wrong = set(self.split.legs.drop_nulls("mismatch").get_column("leg"))
        return [leg for n, leg in enumerate(self.legs) if n not in wrong]

    @cached_property
    def held(self) -> pl.DataFrame:
        """The open holdings that the broker last reported, with the times of their newest rows.

        The value of a holding is current if its source confirmed it since `live_since` of its
        login (`is_current`).
        """
        is_open = pl.col("position") != 0
        times = self.priced.filter(is_open).select(*KEY, CONFIRMED, PRICED)
        found = self.reported.filter(is_open).select("gateway_id", *KEY)
        timed = found.join(times, on=KEY, how="left")
        return timed.with_columns(is_current=is_current(self.live_since))

    @cached_property
    def unwritten(self) -> pl.DataFrame:
        """The reported holdings of which the ledger has another quantity, or no row."""
        rows = self.priced.select(*KEY, written="position")
        written = pl.col("written").fill_null(0.0)
        return self.reported.join(rows, on=KEY, how="left").filter(pl.col("position") != written)

    @cached_property
    def strategies(self) -> list[Sums]:
        """Each strategy by currency."""
        return self._by("strategy_id", "currency", where=pl.col("strategy_id") != UNATTRIBUTED)

    @cached_property
    def rest(self) -> list[Sums]:
        """What no strategy has, by account and currency (UNATTRIBUTED)."""
        names = ("strategy_id", "account", "currency")
        return self._by(*names, where=pl.col("strategy_id") == UNATTRIBUTED)

    @cached_property
    def totals(self) -> list[Sums]:
        """All holdings: by account and currency if there are several accounts, then by currency."""
        several = len({one["account"] for one in self._accounts}) > 1
        totals = [*(self._accounts if several else ()), *self._by("currency")]
        return [one for one in totals if one["currency"] is not None]

    @cached_property
    def in_base(self) -> list[Sums]:
        """The totals of each account in its base currency, by the broker's exchange rates.

        An account has one only if a holding has another currency.
        """
        return [one for one in map(self._in_base, self.accounts) if one is not None]

    @cached_property
    def underlyings(self) -> list[Sums]:
        """All holdings by underlying and currency."""
        return self._of_parts("symbol")

    @cached_property
    def expiries(self) -> list[Sums]:
        """All holdings with an expiry by that and currency, the nearest first."""
        return self._of_parts("expiry")

    @property
    def sums(self) -> dict[str, list[Sums]]:
        """All tables by name."""
        names = ("strategies", "rest", "totals", "in_base", "underlyings")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def _accounts(self) -> list[Sums]:
        return [one for one in self._by("account", "currency") if one["currency"] is not None]

    def _by(self, *names: str, where: pl.Expr | None = None) -> list[Sums]:
        found = self.split if where is None else self.split.filter(where)
        return [
            self._with_profit(
                _sums(row, self.now, self.streamed), row.get("strategy_id", self.strategy)
            )
            for row in exposure.summed_legs(found, names, self.now).iter_rows(named=True)
        ]

    def _of_parts(self, name: str) -> list[Sums]:
        """Return the sums by a column that parts have, and legs have not."""
        rows = exposure.summed(self.split.parts.drop_nulls(name), (name, "currency"), self.now)
        return [_sums(row, self.now, self.streamed) for row in rows.iter_rows(named=True)]

    def _with_profit(self, one: Sums, name: str | None) -> Sums:
        """Return a sum with the realised profit of a strategy, of UNATTRIBUTED, or of all."""
        if one["account"] is not None and name not in (None, UNATTRIBUTED):
            return one  # the profit of a strategy is not divided among accounts
        found = self.closes.realized(name, one["account"], one["currency"])
        if found is None:
            return one
        if name not in (None, UNATTRIBUTED):
            found["campaign"] = self._campaign(str(name), one, found["realized_since"])
        return one | found

    def _campaign(self, name: str, one: Sums, since: datetime | None) -> dict[str, Any]:
        campaigns, currency = self.closes.campaigns, one["currency"]
        realised, fees = campaigns.realised.get((name, currency), (0.0, 0.0))
        opened = None if "unrealized_pnl" in one["unknown"] else one["unrealized_pnl"] or 0.0
        own = [one for one in campaigns.lots if (one.strategy_id, one.currency) == (name, currency)]
        if own:
            parts = self.split.parts.filter(strategy_id=name, currency=currency)
            opened = open_profit(own, parts, self.priced)
        profit = None if realised is None or opened is None else realised + opened
        found = {"since": since, "realised": realised, "open": opened, "fees": fees}
        return found | {"profit": profit}

    def _in_base(self, account: AccountSummary) -> Sums | None:
        base, rates = account.currency, account.rates
        of_account = [one for one in self._accounts if one["account"] == account.account]
        currencies = {one["currency"] for one in of_account}
        if base is None or currencies <= {base}:
            return None
        without = tuple(sorted(one for one in currencies if one not in rates))
        found = self.split.filter(
            pl.col("account") == account.account, pl.col("currency").is_not_null()
        )
        # If a rate is missing, no sum is known, and the sums that are made here are not used.
        rate = pl.col("currency").replace_strict(rates, default=1.0, return_dtype=pl.Float64)
        in_base = pl.lit(base).alias("currency")
        converted = Split(
            found.parts.with_columns(*(pl.col(name) * rate for name in _SUMS.values()), in_base),
            found.legs.with_columns(in_base),
        )
        [row] = exposure.summed_legs(converted, ["account", "currency"], self.now).to_dicts()
        # The lines are in the total of each currency.
        return _sums(row, self.now, streamed=None) | {
            "name": BASE_TOTAL,
            "differences": None,
            "rates_age_s": seconds_since(account.rates_received_at, self.now),
            "without_rate": without,
            **(dict.fromkeys(_SUMS) if without else {}),
        }


# The closes, and the contracts of legs and of all that are quoted in cents, by conid.
Known = tuple[Closes, Mapping[int, ContractDetails]]


def versions_of(*tables: Any) -> tuple[int, ...]:
    """Return the newest version of each table."""
    return tuple(one.table.version() for one in tables)


@lru_cache(maxsize=2)
def _known(lake: Lake, _versions: tuple[int, ...]) -> Known:
    """Return what changes seldom: it is read again when one of its tables has changed.

    Seconds after a change of a holding that closed, its cause is in `closures`.
    """
    legs = {leg.conid for leg in lake.registry.sync.get_all_active()}
    return read_closes(lake), lake.contracts.quoted_in_cents() | lake.contracts.get(legs)


def read_book(lake: Lake, settings: Settings, now: datetime) -> Book:
    """Read the holdings and the strategies; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    latest = tables.rows_of_logins(lake.updates.sync.latest(), settings)
    legs = lake.registry.sync.get_all_active()
    reported = tables.all_broker_rows(lake, settings)
    priced = confirmations.with_priced(
        confirmations.newest_values(latest, reported), reported, now, band=settings.value_band
    )
    since = now - timedelta(seconds=2 * settings.refresh_interval_s)
    sessions = (lake.sessions.current(login.gateway_id) for login in settings.logins)
    live = [one for one in sessions if one is not None and one.is_live(now)]
    live_since = {one.gateway_id: max(one.state_since, since) for one in live}
    is_live = pl.col("gateway_id").is_in(list(live_since))
    streamed = written_by(Source.STREAM, priced, settings, now).filter(is_live)
    seldom = versions_of(lake.closures, lake.registry, lake.contracts, lake.executions)
    return replace(
        _book(now, legs, priced, _known(lake, seldom), settings),
        reported=reported.filter(pl.col("sec_type").is_in(settings.sec_types)),
        live_since=live_since,
        streamed=frozenset(streamed.get_column("conid")) if live_since else None,
        accounts=tuple(lake.account_values.latest_summaries()),
        logins=tuple(login.gateway_id for login in settings.logins),
        unresolved=frozenset(leg.strategy_id for leg in lake.registry.unresolved),
    )


def is_current(since: Mapping[str, datetime]) -> pl.Expr:
    """Return whether the source of each row confirmed it since this time of its login.

    Args:
        since: The time of each connected login; rows of another one are not current.
    """
    kind = pl.Datetime("us", "UTC")
    of_login = pl.col("gateway_id").replace_strict(dict(since), default=None, return_dtype=kind)
    return (pl.col(CONFIRMED) >= of_login).fill_null(value=False)


def written_by(
    source: Source, priced: pl.DataFrame, settings: Settings, now: datetime
) -> pl.DataFrame:
    """Return the open holdings whose newest row a source wrote, or confirmed, recently.

    That is within two refresh intervals, or two intervals between rows if those are longer.
    """
    longest = max(settings.refresh_interval_s, settings.row_interval_s)
    since, last = now - timedelta(seconds=2 * longest), pl.max_horizontal("timestamp", CONFIRMED)
    is_recent = last.is_between(since, now + SKEW)
    return priced.filter(pl.col("position") != 0, pl.col("source") == source.value, is_recent)


def _book(
    now: datetime,
    legs: Sequence[ActiveContract],
    priced: pl.DataFrame,
    known: Known,
    settings: Settings,
) -> Book:
    closes, details = known
    try:
        betas = read_scenarios(folder_of(settings.strategies_file)).betas
    except ScenariosFileError:  # `what-if` names the mistake
        betas = {}
    return Book(
        now=now,
        priced=priced,
        legs=tuple(legs),
        split=exposure.split(legs, priced, details, closes.end_of, betas),
        closes=closes,
    )


def book_at(lake: Lake, settings: Settings, past: Past, now: datetime) -> Book:
    """Read the holdings and the strategies of a moment in the past; blocks.

    It has no totals in a base currency, since those use the exchange rates of now.

    Raises:
        LakeError: A table cannot be used.
        MomentError: The moment is in the future, or before the first row.
    """
    rows = tables.rows_at(lake, settings, past, now)
    legs = tables.legs_at(lake, past.at)
    priced = confirmations.with_priced(rows, NO_HOLDINGS, past.at, band=settings.value_band)
    of_legs = lake.contracts.get({leg.conid for leg in legs})
    known = (read_closes(lake, past), lake.contracts.quoted_in_cents() | of_legs)
    return _book(past.at, legs, priced, known, settings)


GREEKS = ("delta", "gamma", "vega", "theta", "implied_vol", "underlying_price")

# The names of a position in the JSON, in order.
COLUMNS = (
    "account", "conid", "name", "symbol", "sec_type", "right", "strike", "expiry", "multiplier",
    "currency", "position", "market_price", "price_kind", "bid", "ask", "market_value",
    "average_cost", "unrealized", "today", "realised_today", "moneyness", "extrinsic", "greeks",
    "greeks_source", "days", "age_s", "greeks_age_s", "feed", "current", "source", "strategies",
    "shares",
)  # fmt: skip

_name = lru_cache(maxsize=100_000)(leg_name)


def position_rows(rows: pl.DataFrame, book: Book) -> pl.DataFrame:
    """Return rows of the ledger with the columns of the JSON, and the times of their ages.

    `strategies` and `shares` name who has which part; what is missing from 1 belongs to nobody.
    `moneyness` is a part of the strike, above 0 in the money; `extrinsic` is of one unit.
    """
    of_strategies = (
        book.split.parts.filter(pl.col("strategy_id") != UNATTRIBUTED)
        .sort("strategy_id")
        .group_by(KEY, maintain_order=True)
        .agg(strategies="strategy_id", shares="share")
    )
    sign = pl.when(pl.col("right") == "CALL").then(1.0).when(pl.col("right") == "PUT").then(-1.0)
    inside = sign * (pl.col("underlying_price") - pl.col("strike"))
    names = map(_name, *(rows.get_column(name) for name in ("symbol", "right", "strike", "expiry")))
    is_tick = pl.col("value_source") == "TICK"
    feed = pl.col("market_data_type").replace_strict(
        confirmations.FEEDS, default="live", return_dtype=pl.String
    )

    def age(name: str) -> pl.Expr:
        passed = (moment(book.now) - pl.col(name)).dt.total_milliseconds() / 1000
        return passed.clip(0.0)

    return (
        rows.with_columns(pl.Series("name", [*names], pl.String))
        .join(of_strategies, on=KEY, how="left", maintain_order="left")
        .with_columns(
            unrealized="unrealized_pnl",
            today="daily_pnl",
            realised_today="realized_pnl",
            moneyness=inside / pl.col("strike"),
            extrinsic=pl.col("market_price") - inside.clip(0.0),
            greeks=pl.struct(GREEKS),
            days=(pl.col("expiry") - exchange_date(book.now)).dt.total_days(),
            confirmed_at=PRICED,
            greeks_at=pl.when(pl.col("delta").is_not_null()).then("greeks_time"),
            feed=pl.when(is_tick).then(feed),
            current=is_current(book.live_since),
            strategies=pl.col("strategies").fill_null([]),
            shares=pl.col("shares").fill_null([]),
        )
        .with_columns(age_s=age("confirmed_at"), greeks_age_s=age("greeks_at"))
    )


def open_positions(
    book: Book, strategy: str | None = None, underlying: str | None = None
) -> pl.DataFrame:
    """Return the open holdings by account and contract; those without an expiry come last.

    Args:
        strategy: Only the legs of this strategy.
        underlying: Only contracts on this symbol, in upper or lower case.
    """
    found = book.priced.filter(pl.col("position") != 0)
    if underlying is not None:
        found = found.filter(pl.col("symbol").str.to_uppercase() == underlying.upper())
    strike = pl.col("strike").fill_null(0.0)
    order = ("account", "symbol", "expiry", strike, "conid")
    rows = position_rows(found, book).sort(order, nulls_last=True)
    if strategy is None:
        return rows
    return rows.filter(pl.col("strategies").list.contains(pl.lit(strategy)))


# The time span of the diagram: a trading day with the hours around it.
SPAN = timedelta(hours=12)

POINTS = 60


def read_curves(lake: Lake, book: Book) -> list[dict[str, Any]]:
    """Read the daily profit of each strategy, and of each account as the broker sums it; blocks.

    The present legs count for the whole span: a leg that became active at noon is in the points of
    the morning as well.
    """
    first, conids = book.now - SPAN, {leg.conid for leg in book.matching}
    sampled = lake.updates.sync.sampled(conids, first, book.now, POINTS)
    curves = curves_of(sampled, book.matching, book.priced.filter(pl.col("timestamp") < first))
    rows = lake.account_values.between(first, book.now)
    known = rows.filter(pl.col("daily_pnl").is_not_null())
    for (account, currency), of in known.group_by("account", "currency", maintain_order=True):
        points = of.gather_every(max(1, of.height // POINTS)).select("timestamp", "daily_pnl")
        curve = {"name": account, "currency": currency, "points": points.rows()}
        curves.append(curve | {"is_account": True})
    return curves


def curves_of(
    rows: pl.DataFrame, legs: Sequence[ActiveContract], still: pl.DataFrame
) -> list[dict[str, Any]]:
    """Sum the newest rows at each point, with the shares of strategies as in `claims_of`.

    A profit of more than a day before is that of another day: the present one is not known. Nor is
    a sum of which a part is unknown, since a curve shows no marks.

    Args:
        rows: The rows of each point (`SyncUpdates.sampled`).
        legs: The active legs that match their contracts.
        still: The newest rows of the holdings that have none among `rows`.

    Returns:
        The name of each strategy, the currency and the points, by strategy and currency.
    """
    found: dict[tuple[str, str], list[tuple[datetime, float | None]]] = defaultdict(list)
    newest = {(row["account"], row["conid"]): row for row in still.iter_rows(named=True)}
    for part in rows.partition_by("slot", maintain_order=True):
        slot: datetime = part.item(0, "slot")
        newest |= {(row["account"], row["conid"]): row for row in part.iter_rows(named=True)}
        held = {key: row["position"] for key, row in newest.items()}
        sums: dict[tuple[str, str], list[float | None]] = defaultdict(list)
        for n, holding, share in exposure.claims_of(dict(enumerate(legs)), held):
            row = newest[holding]
            is_of_day = row["daily_pnl"] is not None and slot - row["timestamp"] <= A_DAY
            profit = row["daily_pnl"] * share if is_of_day else None
            sums[legs[n].strategy_id, row["currency"]].append(profit)
        for key, values in sums.items():
            known = [value for value in values if value is not None]
            found[key].append((slot, sum(known) if len(known) == len(values) else None))
    return [
        {"name": strategy, "currency": currency, "points": points}
        for (strategy, currency), points in sorted(found.items())
    ]
