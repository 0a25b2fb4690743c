"""The program beside the simulated broker: its jobs at their times, its rows beside a gateway.

The jobs are those of Dagster's definitions, run in this process. The simulated days lie in the past
of the machine's clock, and each job names its days: nothing of the program reads another clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import dagster as dg
import polars as pl
from ib_async import CommissionReport, Contract, Fill
from ib_async import Execution as BrokerExecution

from ib_gateway_simulator.clearing.back_office import ClosedBooks
from ib_gateway_simulator.clearing.entries import EXECUTED, TradeEntry
from ib_gateway_simulator.clearing.securities import Category, Security
from position_sync_dagster.defs.resources import CLOSE_JOB, IMPORT_JOB
from position_sync_dagster.domain.closes import PositionChange
from position_sync_dagster.domain.instrument import RIGHTS, ContractDetails
from position_sync_dagster.domain.position_update import PositionUpdate, Source, ValueOrigin
from position_sync_dagster.gateway import connection
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema import content_id
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.explain_closes import CloseExplainer
from tests.support.month.broker import Broker, Delivery
from tests.support.month.market import close_of

# How long before the close the last rows of a session are written.
LAST_ROWS = timedelta(minutes=2)

# Securities that London quotes in pence.
IN_PENCE = {"GBP"}

# As many sessions as the program fills again at night.
LATE_SESSIONS = 3


@dataclass(slots=True, kw_only=True)
class Program:
    """The tables, the folder of statements, and Dagster's jobs.

    Attributes:
        jobs: The definitions that have the jobs of the program.
    """

    lake: Lake
    settings: Settings
    instance: dg.DagsterInstance
    jobs: dg.Definitions
    # What the gateway named last, and when: quantities by account and conid.
    _named: dict[tuple[str, int], Decimal] = field(default_factory=dict)
    _named_at: datetime | None = None

    def receive(self, files: Iterable[Delivery]) -> None:
        """Put files into the folder of statements."""
        self.settings.flex_folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            Path(self.settings.flex_folder, file.name).write_bytes(file.content)

    def import_statements(self) -> None:
        """Run the job of the night that imports statements."""
        self._run(IMPORT_JOB, {})

    def fill(self, sessions: Iterable[date]) -> None:
        """Run the job that fills sessions: daily positions, profit, and what follows of them."""
        days = sorted(sessions)
        tags = {
            "dagster/asset_partition_range_start": days[0].isoformat(),
            "dagster/asset_partition_range_end": days[-1].isoformat(),
        }
        self._run(CLOSE_JOB, tags)

    def _run(self, job: str, tags: dict[str, str]) -> None:
        found = self.jobs.resolve_job_def(job)
        result = found.execute_in_process(instance=self.instance, tags=tags)
        assert result.success, job

    # -- beside a gateway ---------------------------------------------------------------------

    def live(self, broker: Broker, session: date) -> None:
        """Write what the program would have written beside a gateway on a session."""
        closed = close_of(session).astimezone(UTC)
        seen_at = closed - LAST_ROWS
        self._put_contracts(broker, seen_at)
        quantities: dict[tuple[str, int], Decimal] = {}
        for account in broker.closed:
            books = broker.books(account, session)
            held = books.quantities_at(seen_at)
            self._record_executions(books, closed)
            self._record_values(books, broker, held, seen_at)
            quantities |= {(account, conid): quantity for conid, quantity in held.items()}

        self._record_changes(broker, quantities, seen_at)

    def _put_contracts(self, broker: Broker, seen_at: datetime) -> None:
        """Store the details of all contracts, as a gateway sends them: London in pence."""
        securities = broker.office.securities.values()
        self.lake.contracts.put([_details_of(security, seen_at) for security in securities])

    def _record_changes(
        self, broker: Broker, quantities: dict[tuple[str, int], Decimal], seen_at: datetime
    ) -> None:
        """Store what changed since the gateway named the holdings last."""
        before, since = self._named, self._named_at
        changes: list[PositionChange] = []
        for account, conid in sorted({*before, *quantities}):
            of_holding = [named.get((account, conid), Decimal(0)) for named in (before, quantities)]
            if of_holding[0] != of_holding[1]:
                security = broker.office.securities[conid]
                changes.append(_change_of(security, account, of_holding, since, seen_at))
        if since is not None:
            self.lake.position_changes.add(changes)
        self._named, self._named_at = quantities, seen_at

    def explain_closes(self, now: datetime) -> None:
        """Judge the closes, as each tick does."""
        CloseExplainer(self.lake, clock=lambda: now.astimezone(UTC)).explain()

    def _record_executions(self, books: ClosedBooks, closed: datetime) -> None:
        """Store the fills of the session, as the gateway sends them."""
        found = []
        for entry in books.entries:
            if isinstance(entry, TradeEntry) and entry.kind == EXECUTED:
                fill, report = _fill_of(entry), _commission_of(entry)
                found.append(connection._execution(fill, report, closed))
        self.lake.executions.add(found)

    def _record_values(
        self, books: ClosedBooks, broker: Broker, held: Mapping[int, Decimal], at: datetime
    ) -> None:
        """Append a row of each holding, and of what the session closed."""
        quantities = dict(held)
        for entry in books.entries:
            security = getattr(entry, "security", None)
            if security is not None and security.category is not Category.CURRENCY:
                quantities.setdefault(security.conid, Decimal(0))
        rows = []
        for conid, quantity in sorted(quantities.items()):
            security = broker.office.securities[conid]
            price = broker.market.price(security)
            rows.append(_row_of(books, security, quantity, price, at))
        self.lake.updates.sync.append(rows)

    # -- what it says -------------------------------------------------------------------------

    def profit(self, session: date) -> pl.DataFrame:
        """Return the profit of a session by account and currency; null where a part is unknown."""
        rows = self._derived("profit_explained").filter(pl.col("session_date") == session)
        total = pl.when(pl.col("profit").is_not_null().all()).then(pl.col("profit").sum())
        return rows.group_by("account", "currency").agg(total).sort("account", "currency")

    def books(self) -> pl.DataFrame:
        """Return the closed books of all sessions."""
        return self._derived("books").sort("session_date", "account")

    def _derived(self, name: str) -> pl.DataFrame:
        tables = Lake(self.settings.lake).derived_tables
        return next(table for table in tables if table.spec.name == name).rows()


def _magnifier(security: Security) -> int:
    return 100 if security.currency in IN_PENCE else 1


def _details_of(security: Security, seen_at: datetime) -> ContractDetails:
    under = security.underlying
    return ContractDetails(
        conid=security.conid,
        symbol=under.symbol if under else security.symbol,
        sec_type=security.category.value,
        currency=security.currency,
        local_symbol=security.symbol,
        trading_class=under.symbol if under else security.symbol,
        exchange="SMART",
        under_conid=under.conid if under else None,
        multiplier=float(security.multiplier),
        price_magnifier=_magnifier(security),
        right=RIGHTS.get(security.right),
        strike=None if security.strike is None else float(security.strike),
        last_trade_date=date.fromisoformat(security.expiry) if security.expiry else None,
        last_trade_time="16:00:00" if security.expiry else None,
        time_zone="US/Eastern",
        trading_hours=None,
        seen_at=seen_at,
        under_sec_type=under.category.value if under else None,
    )


def _change_of(
    security: Security,
    account: str,
    quantities: Sequence[Decimal],
    since: datetime | None,
    seen_at: datetime,
) -> PositionChange:
    before, after = map(float, quantities)
    under = security.underlying
    return PositionChange(
        change_id=content_id(seen_at, account, security.conid, before, after),
        account=account,
        conid=security.conid,
        symbol=under.symbol if under else security.symbol,
        sec_type=security.category.value,
        right=RIGHTS.get(security.right),
        strike=None if security.strike is None else float(security.strike),
        expiry=date.fromisoformat(security.expiry) if security.expiry else None,
        multiplier=float(security.multiplier),
        currency=security.currency,
        before=before,
        after=after,
        average_cost=None,
        market_price=None,
        since=since,
        seen_at=seen_at,
        gateway_id="simulated",
        snapshot_id="",
    )


def _fill_of(entry: TradeEntry) -> Fill:
    security, right = entry.security, entry.security.right
    contract = Contract(
        conId=security.conid,
        symbol=security.underlying.symbol if security.underlying else security.symbol,
        secType=security.category.value,
        currency=security.currency,
        multiplier="" if security.multiplier == 1 else f"{security.multiplier:f}",
        strike=float(security.strike or 0),
        right=right,
        lastTradeDateOrContractMonth=security.expiry,
        localSymbol=security.symbol,
    )
    done = BrokerExecution(
        execId=entry.execution_id,
        time=entry.at.astimezone(UTC),
        acctNumber=entry.account,
        side="BOT" if entry.quantity > 0 else "SLD",
        shares=float(abs(entry.quantity)),
        price=float(entry.price * _magnifier(security)),
        permId=entry.order,
    )
    return Fill(contract, done, CommissionReport(), done.time)


def _commission_of(entry: TradeEntry) -> CommissionReport:
    return CommissionReport(
        execId=entry.execution_id,
        commission=float(entry.commission),
        currency=entry.commission_currency,
    )


def _row_of(
    books: ClosedBooks, security: Security, quantity: Decimal, price: Decimal, at: datetime
) -> PositionUpdate:
    value = security.worth(quantity, price)
    is_held = quantity != 0
    under = security.underlying
    return PositionUpdate(
        conid=security.conid,
        symbol=under.symbol if under else security.symbol,
        right=RIGHTS.get(security.right),
        position=float(quantity),
        market_price=float(price * _magnifier(security)) if is_held else None,
        market_value=float(value) if is_held else 0.0,
        average_cost=None,
        unrealized_pnl=None,
        timestamp=at,
        account=books.account,
        sec_type=security.category.value,
        strike=None if security.strike is None else float(security.strike),
        expiry=date.fromisoformat(security.expiry) if security.expiry else None,
        multiplier=float(security.multiplier),
        currency=security.currency,
        value_time=at,
        source=Source.STREAM,
        value_source=ValueOrigin.TICK if is_held else ValueOrigin.NONE,
        gateway_id="simulated",
        batch_id="",
        update_id="",
        local_symbol=security.symbol,
    )
