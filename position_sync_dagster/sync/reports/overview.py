"""The overview of the terminal: status, number of current legs, and money by strategy."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from position_sync_dagster.domain.account_summary import AccountSummary
from position_sync_dagster.domain.broker_position import BrokerPosition, Key
from position_sync_dagster.domain.closures import Closure
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.instrument import ContractDetails, contract_name
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.update import PositionUpdate, Source
from position_sync_dagster.lake.lake import Lake, all_broker_rows, rows_of_logins
from position_sync_dagster.lake.schema.codec import broker_positions_of, updates_of
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.reports.closes import NO_CLOSES, Closes, ClosesReader, read_closes
from position_sync_dagster.sync.reports.confirmations import newest_values, with_priced
from position_sync_dagster.sync.reports.exposure import Split, split
from position_sync_dagster.sync.reports.money import Ages, BookMoney, money_of
from position_sync_dagster.sync.reports.past import NO_HOLDINGS, Past, legs_at, rows_at
from position_sync_dagster.sync.reports.position_list import matching_legs, strategies_by_holding
from position_sync_dagster.sync.reports.status import (
    LoginStatus,
    Status,
    current_since,
    read_status,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """The holdings and the strategies at one moment, as the tables have them.

    Attributes:
        latest: The newest row of each holding, also of closed ones; only for contracts of
            strategies if `of_strategies` was set.
        holdings: What the broker last reported of them.
        legs: The active legs.
        matching: Those legs whose description matches the contract of their conid, or whose
            contract is not known yet.
        priced: The newest row of each holding, also of those that `of_strategies` leaves out.
        split: The parts of all these holdings.
        streamed: The conids whose newest row the stream wrote within the last two refresh
            intervals, for logins whose owner is connected; None while none is.
        accounts: The newest values of the accounts, with their exchange rates.
        closes: What closed, and why.
    """

    latest: tuple[PositionUpdate, ...]
    holdings: tuple[BrokerPosition, ...]
    legs: tuple[ActiveContract, ...]
    matching: tuple[ActiveContract, ...]
    ages: Ages
    priced: pl.DataFrame
    split: Split
    streamed: frozenset[int] | None
    accounts: tuple[AccountSummary, ...] = ()
    closes: Closes = NO_CLOSES

    def money(self, strategy: str | None = None) -> BookMoney:
        """Return the money of all holdings, or of one strategy."""
        return money_of(
            self.split,
            self.ages.now,
            streamed=self.streamed,
            accounts=self.accounts,
            strategy=strategy,
            closes=self.closes,
        )

    @property
    def strategies_of(self) -> dict[Key, list[str]]:
        """The strategies of each holding that has a row."""
        return strategies_by_holding(self.latest, self.matching)

    @property
    def leg_ages(self) -> list[tuple[str, float | None]]:
        """The name of each active leg that is held, and the age of its price in seconds."""
        active = {leg.conid for leg in self.matching}
        return [
            (contract_name(row), self.ages.age_s((row.account, row.conid)))
            for row in self.latest
            if row.position and row.conid in active
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The state of everything at one moment.

    Attributes:
        held: Holdings that the broker reports.
        current_keys: Those whose value was confirmed within the last two refresh intervals, while
            their gateway is connected; none while it is not.
        oldest_age_s: The age of the oldest price of a holding, in seconds; None if one is unknown.
        money: The money of the holdings: by strategy, in total, by underlying.
        closes: Why holdings closed lately, as far as that is known.
    """

    status: Status
    book: Book
    held: int
    current_keys: frozenset[Key]
    money: BookMoney
    oldest_age_s: float | None = None
    closes: tuple[Closure, ...] = ()

    @property
    def current(self) -> int:
        """The number of holdings whose value is current."""
        return len(self.current_keys)


def read_book(
    lake: Lake,
    settings: Settings,
    now: datetime,
    *,
    latest: pl.DataFrame,
    details: Mapping[int, ContractDetails] | None = None,
    of_strategies: bool = False,
    closes: Closes | None = None,
) -> Book:
    """Read the holdings and the strategies; blocks.

    Args:
        latest: The newest row of each holding of the logins (`rows_of_logins`).
        of_strategies: Make values of those rows alone that a leg names; the sums are the same.
        details: The contracts by conid, if the caller has them.
        closes: What closed, if the caller has it.

    Raises:
        LakeError: A table cannot be used.
    """
    closes = read_closes(lake) if closes is None else closes
    legs = lake.registry.sync.get_all_active()
    reported = all_broker_rows(lake, settings)
    latest = newest_values(latest, reported)
    priced = with_priced(latest, reported, now, band=settings.value_band)
    is_of_leg = pl.col("conid").is_in(list({leg.conid for leg in legs}))

    def chosen(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(is_of_leg) if of_strategies else frame

    rows, ages = updates_of(chosen(latest)), Ages.of(chosen(priced), now)
    sessions = (lake.sessions.current(login.gateway_id) for login in settings.logins)
    live = {
        session.gateway_id
        for session in sessions
        if session is not None and session.is_alive(now) and session.state == SessionState.LIVE
    }
    since = current_since(settings, now)
    streamed = frozenset(
        row.conid
        for row in rows
        if row.position
        and row.source is Source.STREAM
        and max(row.timestamp, ages.confirmed[row.account, row.conid] or row.timestamp) >= since
        and row.gateway_id in live
    )
    if details is None:
        details = lake.contracts.quoted_in_cents()
        details |= lake.contracts.get({leg.conid for leg in legs})
    return Book(
        latest=tuple(rows),
        holdings=tuple(broker_positions_of(chosen(reported))),
        legs=tuple(legs),
        matching=tuple(matching_legs(legs, details)),
        ages=ages,
        priced=priced,
        split=split(legs, priced, details, closes.end_of),
        streamed=streamed if live else None,
        accounts=tuple(lake.account_values.latest_summaries()),
        closes=closes,
    )


CENTS_READ = timedelta(minutes=1)
"""How often the contracts that are quoted in cents are read again."""


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
    details = lake.contracts.get({leg.conid for leg in legs})
    closes = read_closes(lake, past)
    return Book(
        latest=tuple(updates_of(rows)),
        holdings=(),
        legs=tuple(legs),
        matching=tuple(matching_legs(legs, details)),
        ages=Ages.of(priced, past.at),
        priced=priced,
        split=split(legs, priced, details, closes.end_of),
        streamed=None,
        closes=closes,
    )


LATELY = timedelta(hours=1)
"""How long after its judgement a close is among the last ones."""


@dataclass(eq=False, repr=False)
class OverviewReader:
    """Reads the overview repeatedly, and each time only the new data."""

    lake: Lake
    settings: Settings

    def __post_init__(self) -> None:
        self._details: dict[int, ContractDetails] = {}
        self._cents_read_at: datetime | None = None
        self._closes = ClosesReader(self.lake)

    def read(self, now: datetime) -> Overview:
        """Read everything that the live status shows; blocks.

        Raises:
            LakeError: A table cannot be used.
        """
        lake, settings = self.lake, self.settings
        frame = rows_of_logins(lake.updates.sync.latest(), settings)
        closes = self._closes.read()
        status = read_status(lake, settings, now, latest=frame, closes=closes)
        unknown = {leg.conid for leg in lake.registry.legs} - self._details.keys()
        if unknown:  # read once: a contract keeps its description, only its trading hours change
            self._details |= lake.contracts.get(unknown)
        if self._cents_read_at is None or not timedelta() <= now - self._cents_read_at < CENTS_READ:
            self._cents_read_at = now
            self._details |= lake.contracts.quoted_in_cents()
        book = read_book(lake, settings, now, latest=frame, details=self._details, closes=closes)
        held: dict[str, set[Key]] = defaultdict(set)
        for holding in book.holdings:
            if holding.position:
                held[holding.gateway_id].add(holding.key)
        return Overview(
            status=status,
            book=book,
            closes=tuple(one for one, _names in closes.chosen(judged_since=now - LATELY)[::-1]),
            held=sum(map(len, held.values())),
            current_keys=frozenset().union(
                *(
                    current_of(held[login.gateway_id], book.ages, login, settings)
                    for login in status.each_login
                )
            ),
            money=book.money(),
            oldest_age_s=book.ages.oldest_s(set().union(*held.values())),
        )


def current_of(
    held: Collection[Key], ages: Ages, status: LoginStatus, settings: Settings
) -> set[Key]:
    """Return the holdings whose value is current now; none while the gateway is not connected."""
    if status.session_state != SessionState.LIVE or status.session_since is None:
        return set()
    since = max(status.session_since, current_since(settings, ages.now))
    return {key for key in held if (at := ages.confirmed.get(key)) is not None and at >= since}
