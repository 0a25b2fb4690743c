"""What the program makes of the world: it reads what the broker wrote, and its public answers."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from position_sync_dagster.domain.execution import FROM_GATEWAY, Execution, Side
from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.instrument import ContractDetails, Instrument, Right
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.lake.schema import DAILY_POSITIONS
from position_sync_dagster.money.campaigns.closed_campaign import ClosedCampaign
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.campaigns.closes_of_strategies import read_closes
from position_sync_dagster.money.campaigns.lots import TradedLot, read_lots
from position_sync_dagster.money.campaigns.strategy_money import LiveMoney
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.booking import Booking, booked, of_account, of_owner
from position_sync_dagster.money.past.explain_closes import CloseExplainer
from position_sync_dagster.money.past.postings import Posting
from position_sync_dagster.money.past.statement_days import StatementDays
from position_sync_dagster.money.past.statement_folder import import_statements
from position_sync_dagster.money.profit.books import close_books
from position_sync_dagster.money.profit.moved_between import TradingDay
from position_sync_dagster.money.profit.profit import explain_days
from position_sync_dagster.money.tables import PROFIT_EXPLAINED
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.exchange_days import closing_times
from tests.support.derived_rows import put_rows
from tests.support.empty_lakes import put_tables
from tests.support.ledger_world import values
from tests.support.ledger_world.values import ACCOUNTS
from tests.support.ledger_world.world import Gone, World
from tests.support.ledger_world.writers import execution_id, first_statements_of, statements_of

NEW_YORK = ZoneInfo("America/New_York")


@dataclass
class Played:
    """A lake into which the world is imported, and what the program says of it."""

    world: World
    folder: Path
    lake: MoneyLake = field(init=False)

    def __post_init__(self) -> None:
        self.settings = Settings(lake=str(self.folder / "lake"), flex_folder=self.folder / "flex")
        self.lake = MoneyLake(self.folder / "lake")

    @cached_property
    def statements(self) -> dict[str, str]:
        return statements_of(self.world, ACCOUNTS)

    @cached_property
    def first_statements(self) -> dict[str, str]:
        return first_statements_of(self.world, ACCOUNTS)

    # -- what it is told

    def begin(self) -> "Played":
        """Make an empty lake, with the legs of the world."""
        (self.folder / "flex").mkdir(parents=True)
        put_tables(self.folder / "lake")
        self.lake.registry.sync.add_many(legs_of(self.world))
        self.lake.contracts.put(futures_of(self.world))
        return self

    def again(self, world: World | None = None) -> "Played":
        """Return the lake as a new process sees it, perhaps beside a later world."""
        return Played(world or self.world, self.folder)

    def import_files(self, names: Iterable[str]) -> None:
        """Put statements into the folder, and import it."""
        statements = self.statements | self.first_statements
        for name in names:
            (self.folder / "flex" / name).write_text(statements[name])
        imported = import_statements(self.lake, self.settings)
        assert not imported.unreadable, imported.unreadable

    def report_executions(self, day: date) -> None:
        """Let the gateway report the trades of a day."""
        executions = executions_of(self.world, day)
        now = datetime.combine(day, time(17), NEW_YORK).astimezone(UTC)
        CloseExplainer(self.lake, clock=lambda: now).explain(executions)

    def see_changes(self) -> None:
        """Let the program see what is gone, and judge it after the last day."""
        self.lake.position_changes.add([change_of(gone) for gone in self.world.gone])
        now = datetime.combine(self.world.days[-1] + timedelta(days=2), time(12), UTC)
        CloseExplainer(self.lake, clock=lambda: now).explain()

    def report_positions(self) -> None:
        """Let the gateway report the positions of the last day."""
        self.lake.broker_positions.replace("g", positions_of(self.world))

    def fill_days(self) -> None:
        """Fill the positions of the days."""
        service = StatementDays(self.lake, self.settings)
        filled = service.collect(self.world.days).filled
        table = self.lake.derived_table(DAILY_POSITIONS)
        put_rows(table, {day: closed.rows for day, closed in filled.items()})

    def finish(self) -> "Played":
        """Fill the days, report what is held, and judge what is gone."""
        self.fill_days()
        self.report_positions()
        self.see_changes()
        return self

    def files_of(self, days: Iterable[date], *, are_first: bool = False) -> list[str]:
        """Return the statements of some days, or those that were made first, in any order."""
        kinds = self.first_statements if are_first else self.statements
        wanted = {f"{day:%Y%m%d}" for day in days}
        names = [name for name in kinds if name.split("-")[1].removesuffix(".xml") in wanted]
        Random(len(names)).shuffle(names)
        return names

    # -- what it says

    @cached_property
    def stated_positions(self) -> dict[tuple[str, int], float]:
        """The positions of the last day, as Open Positions state them."""
        rows = self.lake.derived_table(DAILY_POSITIONS).rows()
        rows = rows.filter(session_date=self.world.days[-1])
        named = rows.select("account", "conid", "position").iter_rows()
        return {(account, conid): position for account, conid, position in named if position}

    @cached_property
    def postings(self) -> list[Posting]:
        return list(CampaignBook(self.lake).parts)

    @cached_property
    def by_owner(self) -> Booking:
        return booked(self.postings, of_owner)

    @cached_property
    def by_account(self) -> Booking:
        return booked(self.postings, of_account)

    @cached_property
    def live(self) -> dict[tuple[str, str | None], LiveMoney]:
        money = read_closes(self.lake).money
        return {key: of_strategy.earned for key, of_strategy in money.items()}

    @cached_property
    def lots(self) -> list[TradedLot]:
        return read_lots(self.lake)

    @cached_property
    def campaigns(self) -> list[ClosedCampaign]:
        return CampaignBook(self.lake).rows()

    @cached_property
    def days(self) -> dict[date, pl.DataFrame]:
        """The explained profit of each day but the first."""
        days = self.world.days
        closes = closing_times(self.settings.calendar, days)
        trading_days = [
            TradingDay(day=day, before=before, since=closes[before], closed=closes[day])
            for before, day in pairwise(days)
        ]
        rows = explain_days(self.lake, self.settings, trading_days)
        put_rows(self.lake.derived_table(PROFIT_EXPLAINED), rows)
        return rows

    @cached_property
    def books(self) -> pl.DataFrame:
        """The books of each day but the first."""
        assert self.days
        return pl.concat(close_books(self.lake, self.settings, day) for day in self.world.days[1:])


def legs_of(world: World) -> list[ActiveContract]:
    """Return the legs as the registry has them."""
    added = datetime(2026, 3, 20, tzinfo=UTC)
    return [
        ActiveContract(
            strategy_id=leg.owner,
            added_at=added,
            quantity=None if leg.quantity is None else float(leg.quantity),
            account=leg.account,
            since=leg.since,
            **_name_of(leg.contract),
            **_option_terms_of(leg.contract),
        )
        for leg in world.legs
    ]


def futures_of(world: World) -> list[ContractDetails]:
    """Return the details of futures and of options on them.

    No other source says whether their prices are quoted in cents.
    """
    contracts = world.contracts.values()
    return [_details_of(contract) for contract in contracts if contract.category in ("FUT", "FOP")]


def _details_of(contract: values.Contract) -> ContractDetails:
    named = _name_of(contract) | _size_of(contract)
    terms = _option_terms_of(contract)
    return ContractDetails(
        **named,
        right=terms["right"],
        strike=terms["strike"],
        last_trade_date=contract.expiry,
        local_symbol="",
        trading_class="",
        exchange="CME",
        under_conid=contract.underlying or None,
        price_magnifier=1,
        last_trade_time=None,
        time_zone=None,
        trading_hours=None,
        under_sec_type="FUT" if contract.is_option else None,
        seen_at=datetime(2026, 3, 1, tzinfo=UTC),
    )


def _name_of(contract: values.Contract) -> dict[str, Any]:
    return {"conid": contract.conid, "symbol": contract.symbol}


def _size_of(contract: values.Contract) -> dict[str, Any]:
    """Return what money the price of a contract is."""
    multiplier = float(contract.multiplier)
    return {"sec_type": contract.category, "currency": "USD", "multiplier": multiplier}


def _option_terms_of(contract: values.Contract) -> dict[str, Any]:
    right = {"C": Right.CALL, "P": Right.PUT}.get(contract.right)
    strike = float(contract.strike) or None
    return {"right": right, "strike": strike, "expiry": contract.expiry}


def executions_of(world: World, day: date) -> list[Execution]:
    """Return the trades of a day as the gateway names them: not what the broker books by itself."""
    executions = []
    for booking in world.bookings:
        if booking.contract is None or booking.number in world.withdrawn:
            continue

        is_trade = (booking.section, booking.kind) == ("Trades", "ExchTrade")
        if is_trade and booking.day == day:
            executions.append(_execution_of(booking, booking.contract))

    return executions


def _execution_of(booking: values.Booking, contract: values.Contract) -> Execution:
    named = _name_of(contract) | _size_of(contract)
    return Execution(
        **named,
        execution_id=execution_id(booking),
        account=booking.account,
        time=_moment_of(booking.at),
        side=Side.BUY if booking.quantity > 0 else Side.SELL,
        quantity=float(abs(booking.quantity)),
        price=booking.price / 100,
        commission=booking.fee / 100 if booking.is_fee_stated else None,
        commission_currency="USD",
        realized_pnl=None,
        source=FROM_GATEWAY,
        statement="",
        order_id=str(booking.order),
        stated_at=_at_hour(booking.day, 17),
    )


def _moment_of(at: datetime) -> datetime:
    return at.replace(tzinfo=NEW_YORK).astimezone(UTC)


def _at_hour(day: date, hour: int) -> datetime:
    return _moment_of(datetime.combine(day, time(hour)))


def positions_of(world: World) -> list[BrokerPosition]:
    """Return the positions of the last day as a gateway reports them; 0 of what was held before."""
    day = world.days[-1]
    close = world.closes[day]
    at = _at_hour(day, 21)
    reported = []
    for (account, conid), quantity in world.positions.items():
        contract = world.contracts[conid]
        terms = _name_of(contract) | _size_of(contract) | _option_terms_of(contract)
        cost = close.costs.get((account, conid))
        position = BrokerPosition(
            gateway_id="g",
            account=account,
            instrument=Instrument(**terms),
            position=float(quantity),
            average_cost=None if cost is None or not quantity else float(-cost / quantity) / 100,
            received_at=at,
            position_time=at,
            snapshot_id="s",
        )
        reported.append(position)
    return reported


def change_of(gone: Gone) -> PositionChange:
    """Return what the owner of the login saw."""
    contract = gone.contract
    named = _name_of(contract) | _size_of(contract)
    seen_at = _moment_of(gone.booking.at)
    return PositionChange(
        **named,
        **_option_terms_of(contract),
        change_id=f"gone-{gone.account}-{contract.conid}",
        account=gone.account,
        before=float(gone.quantity),
        after=0.0,
        average_cost=None if gone.cost is None else float(gone.cost / gone.quantity) / 100,
        market_price=None,
        since=seen_at - timedelta(minutes=1),
        seen_at=seen_at,
        gateway_id="g",
        snapshot_id="s",
    )


def name_in_graph(posting: Posting) -> str:
    """Return how the world calls what a posting is of."""
    movement = posting.movement
    account, conid = posting.key
    if posting.is_prior:
        return f"prior:{account}:{conid}"
    if movement.transaction_id is not None:
        return movement.transaction_id
    if movement.execution_id is not None:
        return movement.execution_id.removeprefix("0000").partition(".")[0]
    return f"gone:{account}:{conid}"
