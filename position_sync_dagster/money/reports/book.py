"""The holdings and strategies at one moment: positions, and every sum of money and greeks.

The sums are by strategy, account, underlying and expiry, each in one currency. Only the totals in
the base currency of an account add several, by the broker's rates.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cached_property, lru_cache
from itertools import zip_longest
from operator import attrgetter
from typing import Any, TypeVar

import polars as pl
from polars import DataFrame, Expr, String, col, lit, when

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.clock import SKEW, elapsed
from position_sync_dagster.domain.holding import GREEKS_COLUMNS, KEY
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.domain.position_update import PriceKind, Source, ValueOrigin
from position_sync_dagster.lake import lake as tables
from position_sync_dagster.lake.ledger_rows import COMMITTED
from position_sync_dagster.lake.schema import moment, records_of
from position_sync_dagster.money.as_of import NO_HOLDINGS, Past, legs_at, rows_at
from position_sync_dagster.money.campaigns.campaigns import part_reached
from position_sync_dagster.money.campaigns.closes_of_strategies import (
    NO_CLOSES,
    SUMS_OF_CLOSES,
    Closes,
    read_closes,
    read_ends,
)
from position_sync_dagster.money.campaigns.strategy_money import (
    LatestCampaign,
    LiveMoney,
    StrategyMoney,
    open_profits,
)
from position_sync_dagster.money.cents import in_cents
from position_sync_dagster.money.lake import MoneyLake, derived_rows
from position_sync_dagster.money.magnifiers import quoted_in_cents
from position_sync_dagster.money.past.movements import known_sum
from position_sync_dagster.money.past.owned_parts import PostingBook
from position_sync_dagster.money.past.postings import names_of
from position_sync_dagster.money.reports import exposure
from position_sync_dagster.money.reports.columns import Row
from position_sync_dagster.money.reports.exposure import NO_CLAIMS, NO_PARTS, Claims, Split
from position_sync_dagster.money.reports.known_names import KnownNames
from position_sync_dagster.money.reports.money_sums import (
    BaseTotal,
    CampaignSoFar,
    ExpirySum,
    MoneySum,
    SinceFirstLeg,
    StrategySum,
    TotalSum,
    UnderlyingSum,
    base_totals,
)
from position_sync_dagster.money.risk.scenario_file import (
    ScenariosFileError,
    folder_of,
    read_scenarios,
)
from position_sync_dagster.money.tables import CLOSED_CAMPAIGNS
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync import confirmations
from position_sync_dagster.sync.confirmations import CONFIRMED, PRICED
from position_sync_dagster.sync.exchange_days import LISTED, day_of

AnySum = TypeVar("AnySum", bound=MoneySum)


@dataclass(frozen=True, kw_only=True)
class Book:
    """The holdings and the strategies at one moment, as the tables have them.

    Rows stay in columns: those of 20,000 holdings take half a second to become values.

    Attributes:
        now: The moment.
        priced: The newest row of each holding, also of closed ones, with its times
            (`with_priced`).
        claims: The active legs, with their contracts and all that are quoted in cents.
        split: The parts of all these holdings.
        reported: What the broker last reported of the followed types: rows of `broker_positions`.
        live_since: For each connected login: values that their source confirmed since then are
            current. It is the start of the connection, or when older ones became stale.
        streamed: The conids whose newest row the stream wrote recently (`written_by`), for logins
            whose owner is connected; None while none is.
        accounts: The newest values of the accounts, with their exchange rates.
        closes: What closed, and why.
        logins: All logins, connected or not.
        unresolved: The strategies with a leg whose contract is not found.
        served: The accounts that the gateways file names.
        strategy: The only strategy whose parts are summed; None: all.
        calendar: The exchange whose day is today.
    """

    now: datetime
    priced: DataFrame
    claims: Claims = NO_CLAIMS
    split: Split = NO_PARTS
    reported: DataFrame = field(default_factory=lambda: NO_HOLDINGS)
    live_since: Mapping[str, datetime] = field(default_factory=dict)
    streamed: frozenset[int] | None = None
    accounts: tuple[AccountSummary, ...] = ()
    closes: Closes = NO_CLOSES
    logins: tuple[str, ...] = ()
    unresolved: frozenset[str] = frozenset()
    served: frozenset[str] = frozenset()
    strategy: str | None = None
    calendar: str = LISTED

    @property
    def today(self) -> date:
        """The day of the exchange."""
        return day_of(self.calendar, self.now)

    @cached_property
    def names(self) -> KnownNames:
        """The names that a person may give."""
        holdings = self.priced.select("account", "symbol")
        holdings = holdings.vstack(self.reported.select(holdings.columns)).unique()
        symbols = {*holdings["symbol"], *self.closes.rows["symbol"]}
        symbols.update(map(attrgetter("symbol"), self.legs))
        symbols.discard(None)
        # A strategy may have a holding without a leg: what an option of it delivered.
        strategies = frozenset([UNATTRIBUTED, *self.split.legs["strategy_id"]])
        accounts = {*holdings["account"], *self.summaries, *self.served}
        return KnownNames(
            strategies=strategies,
            unresolved=self.unresolved,
            accounts=frozenset(accounts),
            underlyings=frozenset(symbols),
        )

    def of_strategy(self, strategy: str | None) -> "Book":
        """Return the book with the sums of one strategy; None: of all."""
        if strategy is None:
            return self
        return replace(
            self, split=self.split.filter(col.strategy_id == strategy), strategy=strategy
        )

    @cached_property
    def summaries(self) -> dict[str, AccountSummary]:
        """The newest values of the accounts, by account."""
        return {summary.account: summary for summary in self.accounts}

    @property
    def legs(self) -> Sequence[ActiveContract]:
        """The active legs."""
        return self.claims.legs

    @cached_property
    def held(self) -> DataFrame:
        """The open holdings that the broker last reported, with the times of their newest rows.

        The value of a holding is current if its source confirmed it since `live_since` of its
        login (`is_current`).
        """
        is_open = col.position != 0
        times = self.priced.filter(is_open).select(*KEY, CONFIRMED, PRICED)
        held = self.reported.filter(is_open).select("gateway_id", *KEY)
        held = held.join(times, on=KEY, how="left")
        return held.with_columns(is_current=is_current(self.live_since))

    @cached_property
    def unwritten(self) -> DataFrame:
        """The reported holdings of which the ledger has another quantity, or no row."""
        newest = self.priced.select(*KEY, written="position")
        joined = self.reported.join(newest, on=KEY, how="left")
        return joined.filter(col.position != col.written.fill_null(0.0))

    @cached_property
    def strategies(self) -> list[StrategySum]:
        """Each strategy by currency."""
        return self._by_strategy(col.strategy_id != UNATTRIBUTED, "currency")

    @cached_property
    def rest(self) -> list[StrategySum]:
        """What no strategy has, by account and currency (UNATTRIBUTED)."""
        return self._by_strategy(col.strategy_id == UNATTRIBUTED, "account", "currency")

    @cached_property
    def totals(self) -> list[TotalSum]:
        """All holdings: by account and currency if there are several accounts, then by currency."""
        by_currency = self._totals_by("currency")
        if self.split.legs.drop_nulls("currency")["account"].n_unique() > 1:
            return [*self._totals_of_accounts, *by_currency]

        return by_currency

    @cached_property
    def _totals_of_accounts(self) -> list[TotalSum]:
        return self._totals_by("account", "currency")

    @cached_property
    def in_base(self) -> list[BaseTotal]:
        """The totals over currencies; none where all is in the base currency of its account."""
        bases = [summary.currency for summary in self.accounts]
        if len({*self.split.legs["currency"].unique(), *bases} - {None}) < 2:
            return []
        return base_totals(self._totals_of_accounts, self.summaries)

    @cached_property
    def underlyings(self) -> list[UnderlyingSum]:
        """All holdings by underlying and currency."""
        return self._with_closes(UnderlyingSum, self._summed("symbol"))

    @cached_property
    def expiries(self) -> list[ExpirySum]:
        """All holdings with an expiry by that and currency, the nearest first."""
        left = col.expiry - self.today
        sums = self._summed("expiry").with_columns(days=left.dt.total_days())
        return self._with_closes(ExpirySum, sums)

    def _summed(self, name: str) -> DataFrame:
        """Return the sums of all holdings that have a value of a column, by that and currency."""
        return exposure.summed(self.split.parts.drop_nulls(name), (name, "currency"))

    @property
    def sums(self) -> dict[str, Sequence[MoneySum | BaseTotal]]:
        """All tables by name."""
        return {
            "strategies": self.strategies,
            "rest": self.rest,
            "totals": self.totals,
            "in_base": self.in_base,
            "underlyings": self.underlyings,
        }

    def _totals_by(self, *names: str) -> list[TotalSum]:
        """Return the sums of all holdings of the book, with the realised profit."""
        rows = exposure.summed_legs(self.split, names).drop_nulls("currency")
        return self._records(TotalSum, rows, self._profit_of)

    def _by_strategy(self, where: Expr, *names: str) -> list[StrategySum]:
        """Return the sums of strategies, or of UNATTRIBUTED, with the realised profit."""
        chosen = self._in_a_currency.filter(where)
        rows = exposure.summed_legs(chosen, ("strategy_id", *names))
        return self._records(StrategySum, rows, self._profit_of)

    @cached_property
    def _in_a_currency(self) -> Split:
        """The holdings; a leg that was never held counts in the currency of its strategy.

        Where the strategy has none, or several, it has no currency.
        """
        first = col.currency.min().over("strategy_id")
        is_only = first == col.currency.max().over("strategy_id")
        currency = col.currency.fill_null(when(is_only).then(first))
        return replace(self.split, legs=self.split.legs.with_columns(currency))

    def _records(
        self, kind: type[AnySum], sums: DataFrame, profit_of: Callable[[Row], Row] = lambda _row: {}
    ) -> list[AnySum]:
        """Return a record of each row of sums, with its realised profit."""
        return [
            kind.of_row(row, profit_of(row), self.now, self.streamed)
            for row in sums.iter_rows(named=True)
        ]

    def _with_closes(self, kind: type[AnySum], sums: DataFrame) -> list[AnySum]:
        """Return a record of each row of sums, with the realised profit of its closes.

        The closes of a strategy are not divided among underlyings and expiries.
        """
        name = kind.named_by
        if name is None or self.strategy is not None or self.closes.since is None:
            return self._records(kind, sums)

        by_name = (col(name).cast(String), "currency")
        closes = self.closes.rows.group_by(by_name).agg(**SUMS_OF_CLOSES)
        closes_of = closes.rows_by_key((name, "currency"), named=True, unique=True)
        since = {"realized_pnl": 0.0, "realized_since": self.closes.since}

        return self._records(
            kind, sums, lambda row: since | closes_of.get((f"{row[name]}", row["currency"]), {})
        )

    @cached_property
    def _open_profits(self) -> Mapping[tuple[str, str | None], float | None]:
        """What is open of each strategy in each currency would earn; None: not known."""
        return open_profits(self.closes.lots, self.split.parts, self.priced)

    def _profit_of(self, row: Row) -> Row:
        """Return the realised profit of a strategy, of UNATTRIBUTED, or of all, in a row."""
        name = row.get("strategy_id", self.strategy)
        account, currency = row.get("account"), row["currency"]
        is_strategy = name is not None and name != UNATTRIBUTED
        if is_strategy and account is not None:
            return {}  # the profit of a strategy is not divided among accounts

        realized = self.closes.realized(name, account, currency) or {}
        if name is not None and is_strategy and currency is not None:
            money = self.closes.money.get((name, currency), StrategyMoney())
            realized["cost_per_share"] = money.cost_per_share
            if "realized_since" in realized:
                open_now = self._open_profits.get((name, currency), 0.0)
                since = realized["realized_since"]
                realized["since_first_leg"] = _earned(money.earned, open_now, since)
                realized |= _so_far(money.latest, open_now)
        return realized


def _earned(earned: LiveMoney, open_now: float | None, since: datetime | None) -> SinceFirstLeg:
    """Return what a strategy has earned since its first leg: the sum of its campaigns."""
    return SinceFirstLeg(
        since=since,
        realised=earned.realised,
        open=open_now,
        fees=earned.fees,
        other_fees={name: in_cents(fee) for name, fee in earned.other_fees.items()},
        profit=known_sum([earned.realised, open_now]),
    )


def _so_far(latest: LatestCampaign | None, open_now: float | None) -> dict[str, Any]:
    """Return how much of its greatest profit the open campaign of a strategy has reached."""
    if latest is None or not latest.is_open:
        return {"profit_reached_unknown": "no campaign is open"}

    entry = latest.entry
    profit = known_sum([latest.realised, open_now])
    loss_of_credit = None
    if profit is not None and entry.credit is not None and entry.credit > 0:
        loss_of_credit = max(0.0, -profit / entry.credit)
    so_far = CampaignSoFar(
        kind=entry.kind,
        credit=entry.credit,
        greatest_profit=entry.greatest_profit,
        profit=profit,
        loss_of_credit=loss_of_credit,
    )
    reached, unknown = part_reached(profit, entry)
    return {
        "profit_reached": reached,
        "profit_reached_unknown": unknown or None,
        "open_campaign": so_far,
    }


# What closed, and what the active legs claim.
ClosesAndClaims = tuple[Closes, Claims]


def versions_of(*tables: Any) -> tuple[int, ...]:
    """Return the newest version of each table."""
    return tuple(table.table.version() for table in tables)


@lru_cache(maxsize=2)
def _closes_and_claims(lake: MoneyLake, _read_from: tuple[int, ...]) -> ClosesAndClaims:
    """Return what changes seldom: it is read again when what it is read from has changed.

    Seconds after a change of a holding that closed, its cause is in `closures`.
    """
    return read_closes(lake), _claims_of(lake, lake.registry.sync.get_all_active())


def _claims_of(lake: MoneyLake, legs: Sequence[ActiveContract]) -> Claims:
    """Return legs with their contracts, and with all that are quoted in cents."""
    contracts = lake.contracts.get({leg.conid for leg in legs})
    return Claims(legs, quoted_in_cents(lake.contracts) | contracts)


# The assets whose rows make those of a book.
OF_BOOK = (
    "position_updates", "broker_positions", "active_strategies", "contracts", "closures",
    "movements",
)  # fmt: skip


def read_book(lake: MoneyLake, settings: Settings, now: datetime) -> Book:
    """Read the holdings and the strategies; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    book = _read_holdings(lake, settings, now)
    versions = versions_of(lake.closures, lake.registry, lake.contracts, lake.movements)
    holdings = book.reported.filter(col.position != 0).select(KEY)
    read_from = (*versions, int(holdings.hash_rows().sum()))
    return _followed(_divided(book, _closes_and_claims(lake, read_from), settings), settings)


def read_undivided(lake: MoneyLake, settings: Settings, now: datetime) -> Book:
    """Read the holdings and the legs, without parts of holdings, profits and contracts; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    book = _read_holdings(lake, settings, now)
    legs = lake.registry.sync.get_all_active()
    return _followed(replace(book, claims=Claims(legs), closes=read_ends(lake)), settings)


def _followed(book: Book, settings: Settings) -> Book:
    """Return a book of whose reported holdings those of other types are left out."""
    has_wanted_type = col.sec_type.is_in(settings.sec_types)
    return replace(book, reported=book.reported.filter(has_wanted_type))


def _read_holdings(lake: MoneyLake, settings: Settings, now: datetime) -> Book:
    """Read the holdings, all that are reported, without any leg; blocks."""
    rows = tables.rows_of_logins(lake.updates.sync.latest(), settings)
    accounts = records_of(AccountSummary, lake.account_values.latest())
    now = moment_of_look(rows, accounts, now)

    reported = tables.all_broker_rows(lake, settings)
    rows = newest_values(rows, reported)
    priced = confirmations.with_priced(rows, reported, now)

    streamed = None
    live_since = _live_since(lake, settings, now)
    if live_since:
        by_stream = written_by(Source.STREAM, priced, now)
        is_live = col.gateway_id.is_in([*live_since])
        streamed = frozenset(by_stream.filter(is_live)["conid"])

    logins = []
    served: set[str] = set()
    for login in settings.logins:
        logins.append(login.gateway_id)
        served.update(login.accounts or ())

    unresolved = map(attrgetter("strategy_id"), lake.registry.sync.get_unresolved())
    return Book(
        now=now,
        priced=priced,
        reported=reported,
        live_since=live_since,
        streamed=streamed,
        accounts=tuple(accounts),
        logins=tuple(logins),
        unresolved=frozenset(unresolved),
        served=frozenset(served),
        calendar=settings.calendar,
    )


_MONEY = (
    "market_price", "market_value", "unrealized_pnl", "realized_pnl", "daily_pnl", "value_source",
)  # fmt: skip
_NOT_PUBLISHED = ("value_time", "note")
_VALUE = lit(PriceKind.VALUE.value)


def newest_values(rows: DataFrame, holdings: DataFrame) -> DataFrame:
    """Return rows of queued holdings with the values and greeks that were published since.

    The owner of a login publishes a value by PnLSingle a few seconds after it moved, and the drain
    writes its row later. A row with such a value has no `update_id`: the ledger does not have it
    yet. Computed greeks are the published ones; if none are published, the row has none.

    Args:
        rows: Rows of `position_updates`: at most one for each account and conid.
        holdings: Rows of `broker_positions`: at most one for each account and conid.
    """
    names = (*_MONEY, *GREEKS_COLUMNS, "position", "received_at")
    published = holdings.select(*KEY, col(names).name.prefix("_"))
    joined = rows.join(published, on=KEY, how="left", maintain_order="left")

    is_queued = col.source == Source.QUEUE.value
    is_same = is_queued & (col.position == col._position)
    is_pnl = col._value_source == ValueOrigin.PNL_SINGLE.value
    is_later = col._received_at > col.timestamp
    is_newer = is_same & is_pnl & is_later

    def replaced(name: str, value: Expr, where: Expr = is_newer) -> Expr:
        """Return a column with another value in some rows."""
        column = when(where).then(value).otherwise(name)
        return column.cast(rows.schema[name]).alias(name)

    def replacements() -> Iterator[Expr]:
        """Yield the columns of newer values, and the greeks, which the owner alone computes."""
        has_price = col._market_price.is_not_null()
        yield replaced("price_kind", when(has_price).then(_VALUE))
        yield replaced("timestamp", col._received_at)
        yield replaced("update_id", lit(""))
        for name in _MONEY:
            yield replaced(name, col(f"_{name}"))
        for name in _NOT_PUBLISHED:
            yield replaced(name, lit(None))
        for name in GREEKS_COLUMNS:
            yield replaced(name, col(f"_{name}"), is_same)

    return joined.with_columns(replacements()).select(rows.columns)


# A commit takes no longer than this.
COMMIT_TAKES = timedelta(seconds=5)


def moment_of_look(rows: DataFrame, accounts: Sequence[AccountSummary], now: datetime) -> datetime:
    """Return the moment that a look at the newest rows shows: that of the newest commit among them.

    A commit that is under way may have the time of a moment ago, and is in no row yet: read again
    as of now, the tables would have it. Long after the newest commit none is under way.
    """
    committed = rows.select(COMMITTED.max()).item()
    times = [committed, *(account.timestamp for account in accounts)]
    newest = max(filter(None, times), default=now)
    return newest if elapsed(newest, now) < COMMIT_TAKES else now


def _live_since(lake: MoneyLake, settings: Settings, now: datetime) -> dict[str, datetime]:
    """Return for each connected login from when on a confirmed value is current: is not stale."""
    earliest = now - confirmations.STALE_AFTER
    live_since = {}
    for login in settings.logins:
        session = lake.sessions.current(login.gateway_id)
        if session is not None and session.is_live(now):
            live_since[session.gateway_id] = max(session.state_since, earliest)
    return live_since


def is_current(since: Mapping[str, datetime]) -> Expr:
    """Return whether the source of each row confirmed it since this time of its login.

    Args:
        since: The time of each connected login; rows of another one are not current.
    """
    kind = pl.Datetime("us", "UTC")
    of_login = col.gateway_id.replace_strict(dict(since), default=None, return_dtype=kind)
    return (col(CONFIRMED) >= of_login).fill_null(value=False)


def written_by(source: Source, priced: DataFrame, now: datetime) -> DataFrame:
    """Return the open holdings whose newest row a source wrote or confirmed, and is not stale."""
    since = now - confirmations.STALE_AFTER
    is_recent = pl.max_horizontal("timestamp", CONFIRMED).is_between(since, now + SKEW)
    return priced.filter(col.position != 0, col.source == source, is_recent)


def _divided(book: Book, closes_and_claims: ClosesAndClaims, settings: Settings) -> Book:
    """Return a book with the parts that strategies have of its holdings."""
    closes, claims = closes_and_claims
    try:
        betas = read_scenarios(folder_of(settings.strategies_file)).betas
    except ScenariosFileError:  # `what-if` names the mistake
        betas = {}
    split = exposure.split(claims, book.priced, closes.end_of, betas, closes.owned)
    return replace(book, claims=claims, split=split, closes=closes)


def names_ever(lake: MoneyLake, book: Book) -> KnownNames:
    """Return the names of a book with those of strategies that ended; blocks."""
    name = "strategy_id"
    of_campaigns = derived_rows(lake.derived_table(CLOSED_CAMPAIGNS), columns=[name])
    ended = {*lake.registry.sync.history()[name], *of_campaigns[name]}
    return replace(book.names, ended=frozenset(ended))


def book_at(lake: MoneyLake, settings: Settings, past: Past, now: datetime) -> Book:
    """Read the holdings and the strategies of a moment in the past; blocks.

    Raises:
        LakeError: A table cannot be used.
        MomentError: The moment is in the future, or before the first row.
    """
    rows = rows_at(lake, settings, past, now)
    legs = legs_at(lake, past.at)
    priced = confirmations.with_priced(rows, NO_HOLDINGS, past.at)
    closes_and_claims = (read_closes(lake, past), _claims_of(lake, legs))
    accounts = records_of(AccountSummary, lake.account_values.newest_at(past.at))
    book = Book(now=past.at, priced=priced, accounts=tuple(accounts), calendar=settings.calendar)
    return _divided(book, closes_and_claims, settings)


# What marks a sum, or the name of a leg, of a past moment that is not what was shown then.
BEFORE = "≈"


def not_kept_lines(priced: DataFrame) -> list[str]:
    """Return a line about legs that had newer values at a past moment; none without any.

    Args:
        priced: The rows of the moment.
    """
    kept = priced.filter(col.position != 0).select(exposure.IS_KEPT).to_series()
    if kept.all():
        return []
    return [
        f"{BEFORE} marks {(~kept).sum()} of {len(kept)} legs, and the sums with one: each leg has"
        " its last stored value before this moment, since newer ones that were shown are not kept"
    ]


BOOK_GREEKS = ("delta", "gamma", "vega", "theta", "implied_vol", "underlying_price")

# The names of a position in the JSON, in order.
BOOK_COLUMNS = (
    "account", "conid", "name", "symbol", "sec_type", "right", "strike", "expiry", "multiplier",
    "currency", "position", "market_price", "price_kind", "bid", "ask", "market_value",
    "average_cost", "unrealized", "today", "realised_today", "moneyness", "extrinsic", "greeks",
    "greeks_source", "days", "age_s", "greeks_age_s", "feed", "current", "kept", "source",
    "strategies", "shares",
)  # fmt: skip

# The sign of what an option gains when its underlying rises.
_SIGNS = {"CALL": 1.0, "PUT": -1.0}


def position_rows(rows: DataFrame, book: Book) -> DataFrame:
    """Return rows of the ledger with the columns of the JSON, and the times of their ages.

    `strategies` and `shares` name who has which part; what is missing from 1 belongs to nobody.
    `moneyness` is a part of the strike, above 0 in the money; `extrinsic` is of one unit. Of a
    queued holding the value of a moment is not `kept`: see `newest_values`.
    """
    parts = book.split.parts.select(*KEY, "strategy_id", "share")
    parts = parts.join(rows, on=KEY, how="semi")
    rows = rows.join(_owners(parts), on=KEY, how="left", maintain_order="left")
    sign = col.right.replace_strict(_SIGNS, default=None, return_dtype=pl.Float64)
    inside = sign * (col.underlying_price - col.strike)
    feed = col.market_data_type.replace_strict(exposure.FEEDS, default="live", return_dtype=String)
    left = col.expiry - book.today
    greeks_at = when(col.delta.is_not_null()).then("greeks_time")
    return rows.with_columns(
        # A holding in no strategy has no row among those of strategies.
        col("strategies", "shares").fill_null([]),
        name=names_of(rows),
        unrealized="unrealized_pnl",
        today="daily_pnl",
        realised_today="realized_pnl",
        confirmed_at=PRICED,
        moneyness=inside / col.strike,
        extrinsic=col.market_price - inside.clip(0.0),
        days=left.dt.total_days(),
        feed=when(col.value_source == "TICK").then(feed),
        greeks=pl.struct(BOOK_GREEKS),
        greeks_at=greeks_at,
        current=is_current(book.live_since),
        kept=exposure.IS_KEPT,
        age_s=_age_s(col(PRICED), book.now),
        greeks_age_s=_age_s(greeks_at, book.now),
    )


def _owners(parts: DataFrame) -> DataFrame:
    """Return for each holding the strategies that have a part of it, and their shares."""
    parts = parts.filter(col.strategy_id != UNATTRIBUTED).sort("strategy_id")
    return parts.group_by(KEY, maintain_order=True).agg(strategies="strategy_id", shares="share")


def _age_s(at: Expr, now: datetime) -> Expr:
    """Return the age of what is of a time, in seconds."""
    return ((moment(now) - at).dt.total_milliseconds() / 1000).clip(0.0)


def open_positions(
    book: Book, strategy: str | None = None, underlying: str | None = None
) -> DataFrame:
    """Return the open holdings by account and contract; those without an expiry come last.

    Args:
        strategy: Only the legs of this strategy.
        underlying: Only contracts on this symbol, in upper or lower case.
    """
    holdings = book.priced.filter(col.position != 0)
    if underlying is not None:
        symbol = col.symbol.str.to_uppercase()
        holdings = holdings.filter(symbol == underlying.upper())
    if strategy is not None:
        holdings = holdings.join(book.split.parts.filter(strategy_id=strategy), on=KEY, how="semi")

    return _in_order(position_rows(holdings, book))


def _in_order(rows: DataFrame) -> DataFrame:
    """Return holdings by account and contract."""
    order = ("account", "symbol", "expiry", col.strike.fill_null(0.0), "conid")
    return rows.sort(order, nulls_last=True)


def read_first_positions(
    lake: MoneyLake, settings: Settings, now: datetime, limit: int
) -> tuple[DataFrame, int]:
    """Read the first of the `open_positions`, and how many these are in all; blocks.

    Whose the others are is not worked out.

    Raises:
        LakeError: A table cannot be used.
    """
    book = _read_holdings(lake, settings, now)
    holdings = _in_order(book.priced.filter(col.position != 0))
    conids = {*holdings[:limit]["conid"]}

    # Whose a holding is depends on those of its contract in all accounts.
    book = replace(book, priced=book.priced.filter(col.conid.is_in(conids)))
    legs = [leg for leg in lake.registry.sync.get_all_active() if leg.conid in conids]
    closes = Closes(parts=PostingBook(lake).postings(conids))
    book = _divided(book, (closes, _claims_of(lake, legs)), settings)
    return open_positions(book)[:limit], holdings.height


# The time span of the diagram: a trading day with the hours around it.
SPAN = timedelta(hours=12)

POINTS = 60

# A curve has no line over a longer time without a value.
LONGEST_STEP = timedelta(minutes=5)


CurvePoint = tuple[datetime, float | None]


def curves_of_accounts(
    lake: MoneyLake, name: str, now: datetime, span: timedelta = SPAN
) -> dict[str, list[CurvePoint]]:
    """Read one of the values that the broker sends of each account over a time; blocks.

    Args:
        name: The column of `account_values`.
        now: The end of the time.
        span: Its length.
    """
    values = lake.account_values.between(now - span, now)
    values = values.drop_nulls(name).select("account", "timestamp", name)
    return {
        account: with_gaps(rows, every=max(1, len(rows) // POINTS))
        for account, rows in values.rows_by_key("account").items()
    }


def with_gaps(points: Sequence[CurvePoint], every: int = 1) -> list[CurvePoint]:
    """Return each of so many points of a curve, and null where nothing is known for a longer time.

    A line over a gap would look like a steady rise. Both ends of a gap are kept.
    """
    kept: list[CurvePoint] = []
    is_end = False
    for number, (point, following) in enumerate(zip_longest(points, points[1:])):
        gap_at = point[0] + LONGEST_STEP
        is_before_gap = following is not None and following[0] > gap_at
        if is_end or is_before_gap or following is None or number % every == 0:
            kept.append(point)
        if is_before_gap:
            kept.append((gap_at, None))
        is_end = is_before_gap
    return kept
