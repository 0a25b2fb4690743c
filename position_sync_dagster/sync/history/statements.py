"""The statements of the broker: downloaded, checked, and stored where they belong."""

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

from position_sync_dagster.domain.account_summary import AccountSource, AccountSummary
from position_sync_dagster.domain.statement import Statement, StatementCash
from position_sync_dagster.domain.update import trading_mode_of
from position_sync_dagster.gateway.flex import FlexService
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema.ids import content_id
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.history.accounts import known_accounts
from position_sync_dagster.sync.history.statement_folder import (
    StatementFolder,
    Statements,
    refuse_foreign,
)

STATED_AT, STATED_ZONE = time(16, 0), ZoneInfo("America/New_York")
"""The time that stands for the end of a statement's day: the statement names the day alone."""


class StatementService:
    """Downloads the query of the settings, reads the folder, and stores executions and values.

    Example:
        StatementService(lake, settings).import_executions()
    """

    def __init__(
        self, lake: Lake, settings: Settings, *, service: FlexService | None = None
    ) -> None:
        self._lake = lake
        self._settings = settings
        self._folder = StatementFolder(settings.flex_folder)
        self._service = service or FlexService(
            url=settings.flex_url, patience_s=settings.flex_patience_s
        )

    def download(self) -> int:
        """Download the query that the settings name, if any; return how many statements came.

        Raises:
            FlexServiceError: The service gave no statement.
            StatementError: What came cannot be read, or is of a foreign account. In both cases
                the folder is as it was.
        """
        token, query_id = self._settings.flex_token, self._settings.flex_query_id
        if token is None or not token.get_secret_value() or not query_id:
            return 0
        data = self._service.download(token.get_secret_value(), query_id)
        return len(self._folder.store(data, query_id, check=self._refuse_foreign))

    def read(self) -> Statements:
        """Return every statement of the folder, the newest first, and what is wrong with others."""
        read = self._folder.read()
        if not read.found:
            return read
        return read.without_foreign(known_accounts(self._lake), self._settings.trading_mode)

    def import_executions(self, run_id: str | None = None) -> int:
        """Store the executions of all statements in one commit; return how many were new."""
        found = self.read().found
        return self._lake.executions.sync.add(
            (execution for one in found for execution in one.executions), run_id=run_id
        )

    def import_account_values(self, run_id: str | None = None) -> int:
        """Store net liquidation and cash of all statements; return how many rows were new."""
        found = self.read().found
        rows = (summary_of(cash, run_id) for one in found for cash in one.cash)
        return self._lake.account_values.sync.append(rows).rows

    def _refuse_foreign(self, statements: list[Statement]) -> None:
        refuse_foreign(statements, known_accounts(self._lake), self._settings.trading_mode)


def summary_of(cash: StatementCash, run_id: str | None = None) -> AccountSummary:
    """Return the row of `account_values`; the same amounts of a day have the same id."""
    at = datetime.combine(cash.day, STATED_AT, STATED_ZONE).astimezone(UTC)
    amounts = (cash.currency, cash.net_liquidation, cash.cash)
    return AccountSummary(
        row_id=content_id(at, AccountSource.FLEX.value, cash.account, *amounts),
        account=cash.account,
        currency=cash.currency,
        net_liquidation=cash.net_liquidation,
        cash=cash.cash,
        timestamp=at,
        source=AccountSource.FLEX,
        trading_mode=trading_mode_of(cash.account).value,
        run_id=run_id,
    )
