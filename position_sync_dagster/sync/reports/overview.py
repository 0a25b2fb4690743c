"""What terminal and money page show: status, current legs, money, and the positions."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

import polars as pl

from position_sync_dagster.domain.broker_position import AccountSummary
from position_sync_dagster.domain.instrument import ContractDetails
from position_sync_dagster.domain.leg import ActiveContract, contract_mismatch
from position_sync_dagster.domain.update import Source
from position_sync_dagster.lake.lake import (
    NO_HOLDINGS,
    Lake,
    Past,
    all_broker_rows,
    legs_at,
    rows_at,
)
from position_sync_dagster.risk.scenarios import ScenariosFileError, folder_of, read_scenarios
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.closes import NO_CLOSES, Closes, read_closes
from position_sync_dagster.sync.reports.confirmations import (
    CONFIRMED,
    PRICED,
    newest_values,
    with_priced,
)
from position_sync_dagster.sync.reports.exposure import Split, split
from position_sync_dagster.sync.reports.money import BookMoney
from position_sync_dagster.sync.reports.status import (
    current_since,
    is_current,
    written_by,
)


def matching_legs(
    legs: Iterable[ActiveContract], details: Mapping[int, ContractDetails]
) -> list[ActiveContract]:
    """Return the legs without those that do not match the contract of their conid."""
    return [
        leg
        for leg in legs
        if leg.conid not in details or not contract_mismatch(leg, details[leg.conid])
    ]


def _matching(lake: Lake, legs: Collection[ActiveContract]) -> list[ActiveContract]:
    return matching_legs(legs, lake.contracts.get({leg.conid for leg in legs}))


def is_leg_of(lake: Lake, strategy: str, legs: Iterable[ActiveContract]) -> pl.Expr:
    """Return the condition that a row belongs to one of these legs, and the leg to the strategy."""
    anywhere, named = set(), defaultdict(set)
    for leg in _matching(lake, [leg for leg in legs if leg.strategy_id == strategy]):
        if leg.account is None:
            anywhere.add(leg.conid)
        else:
            named[leg.account].add(leg.conid)
    wanted = pl.col("conid").is_in(anywhere)
    for account, conids in named.items():
        wanted |= (pl.col("account") == account) & pl.col("conid").is_in(conids)
    return wanted


@dataclass(frozen=True, kw_only=True)
class Book:
    """The holdings and the strategies at one moment, as the tables have them.

    Rows stay in columns: those of 20,000 holdings take half a second to become values.

    Attributes:
        now: The moment.
        priced: The newest row of each holding, also of closed ones, with its times
            (`with_priced`).
        legs: The active legs.
        matching: Those legs whose description matches the contract of their conid, or whose
            contract is not known yet.
        split: The parts of all these holdings.
        reported: What the broker last reported of the followed types: rows of `broker_positions`.
        live_since: For each connected login: values that their source confirmed since then are
            current. It is the start of the connection, at most two refresh intervals ago.
        streamed: The conids whose newest row the stream wrote within the last two refresh
            intervals, for logins whose owner is connected; None while none is.
        accounts: The newest values of the accounts, with their exchange rates.
        closes: What closed, and why.
        logins: All logins, connected or not.
        unresolved: The strategies with a leg whose contract is not found.
    """

    now: datetime
    priced: pl.DataFrame
    legs: tuple[ActiveContract, ...]
    matching: tuple[ActiveContract, ...]
    split: Split
    reported: pl.DataFrame = field(default_factory=lambda: NO_HOLDINGS)
    live_since: Mapping[str, datetime] = field(default_factory=dict)
    streamed: frozenset[int] | None = None
    accounts: tuple[AccountSummary, ...] = ()
    closes: Closes = NO_CLOSES
    logins: tuple[str, ...] = ()
    unresolved: frozenset[str] = frozenset()

    def money(self, strategy: str | None = None) -> BookMoney:
        """Return the money of all holdings, or of one strategy."""
        return BookMoney(book=self, strategy=strategy)

    @cached_property
    def held(self) -> pl.DataFrame:
        """The open holdings that the broker last reported, with the times of their newest rows.

        The value of a holding is current if its source confirmed it since `live_since` of its
        login (`is_current`).
        """
        key, is_open = ["account", "conid"], pl.col("position") != 0
        times = self.priced.filter(is_open).select(*key, CONFIRMED, PRICED)
        found = self.reported.filter(is_open).select("gateway_id", *key)
        timed = found.join(times, on=key, how="left")
        return timed.with_columns(is_current=is_current(self.live_since))

    @cached_property
    def unwritten(self) -> pl.DataFrame:
        """The reported holdings of which the ledger has another quantity, or no row."""
        key = ["account", "conid"]
        rows = self.priced.select(*key, pl.col("position").alias("written"))
        return self.reported.join(rows, on=key, how="left").filter(
            pl.col("position") != pl.col("written").fill_null(0.0)
        )


class Known(NamedTuple):
    """The closes, and the contracts of legs and of all that are quoted in cents, by conid."""

    closes: Closes
    details: Mapping[int, ContractDetails]


def read_known(lake: Lake) -> Known:
    """Read what changes seldom; blocks.

    Raises:
        LakeError: A table cannot be used.
    """
    legs = {leg.conid for leg in lake.registry.sync.get_all_active()}
    return Known(read_closes(lake), lake.contracts.quoted_in_cents() | lake.contracts.get(legs))


def read_book(
    lake: Lake,
    settings: Settings,
    now: datetime,
    *,
    latest: pl.DataFrame,
    known: Known | None = None,
) -> Book:
    """Read the holdings and the strategies; blocks.

    Args:
        latest: The newest row of each holding of the logins (`rows_of_logins`).
        known: What `read_known` returned before.

    Raises:
        LakeError: A table cannot be used.
    """
    legs = lake.registry.sync.get_all_active()
    reported = all_broker_rows(lake, settings)
    priced = with_priced(newest_values(latest, reported), reported, now, band=settings.value_band)
    since = current_since(settings, now)
    sessions = (lake.sessions.current(login.gateway_id) for login in settings.logins)
    live_since = {
        one.gateway_id: max(one.state_since, since)
        for one in sessions
        if one is not None and one.is_live(now)
    }
    streamed = written_by(priced, Source.STREAM, since).filter(
        pl.col("position") != 0, pl.col("gateway_id").is_in(list(live_since))
    )
    return replace(
        _book(now, legs, priced, known or read_known(lake), known_betas(settings)),
        reported=reported.filter(pl.col("sec_type").is_in(settings.sec_types)),
        live_since=live_since,
        streamed=frozenset(streamed.get_column("conid")) if live_since else None,
        accounts=tuple(lake.account_values.latest_summaries()),
        logins=tuple(login.gateway_id for login in settings.logins),
        unresolved=frozenset(leg.strategy_id for leg in lake.registry.unresolved),
    )


def known_betas(settings: Settings) -> Mapping[str, float]:
    """Return the betas of scenarios.yaml; none while it has a mistake (`what-if` names it)."""
    try:
        return read_scenarios(folder_of(settings.strategies_file)).betas
    except ScenariosFileError:
        return {}


def _book(
    now: datetime,
    legs: Sequence[ActiveContract],
    priced: pl.DataFrame,
    known: Known,
    betas: Mapping[str, float],
) -> Book:
    closes, details = known
    return Book(
        now=now,
        priced=priced,
        legs=tuple(legs),
        matching=tuple(matching_legs(legs, details)),
        split=split(legs, priced, details, closes.end_of, betas),
        closes=closes,
    )


def book_at(lake: Lake, settings: Settings, past: Past, now: datetime) -> Book:
    """Read the holdings and the strategies of a moment in the past; blocks.

    It has no totals in a base currency, since those use the exchange rates of now.

    Raises:
        LakeError: A table cannot be used.
        MomentError: The moment is in the future, or before the first row.
    """
    rows = rows_at(lake, settings, past, now)
    legs = legs_at(lake, past.at)
    priced = with_priced(rows, NO_HOLDINGS, past.at, band=settings.value_band)
    known = lake.contracts.get({leg.conid for leg in legs})
    details = lake.contracts.quoted_in_cents() | known
    known_then = Known(read_closes(lake, past), details)
    return _book(past.at, legs, priced, known_then, known_betas(settings))
