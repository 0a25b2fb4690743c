"""What the broker reported: the newest positions with their values.

A holding may have several rows in `broker_positions`; the one that was added last, by the greatest
`published_version`, counts. The owner of a login first writes all rows of its gateway (`replace`),
then those that change (`update`).

A holding is *followed* while a PnLSingle subscription of the broker sends its value.
`completeness` says how much of an account the broker has sent.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

import polars as pl
from deltalake import DeltaTable
from polars import DataFrame, col, lit, max_horizontal, when

from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.domain.holding import KEY, AccountConfirmation, BrokerPosition
from position_sync_dagster.lake.schema import (
    broker_positions_of,
    moment,
    moments,
    rows_of_positions,
)
from position_sync_dagster.lake.storage import commits
from position_sync_dagster.lake.storage.commits import bind, refuse_stale_owner, text_literal
from position_sync_dagster.lake.storage.data_files import files_in
from position_sync_dagster.lake.storage.table import Table

# At this number of data files all rows are replaced by one: each file takes time to read.
FOLD_FILES = 24


def rows_to_publish(
    gateway_id: str,
    positions: list[BrokerPosition],
    session: GatewaySession | None,
    captured_at: datetime | None,
    accounts: Mapping[str, AccountConfirmation],
) -> DataFrame:
    """Return the holdings of a gateway as rows, with the last confirmation of their accounts.

    Args:
        gateway_id: The gateway.
        positions: Its holdings; of several with the same account and conid, the last one counts.
        session: The lease of the writer; None: the rows name no session.
        captured_at: When the holdings were taken from the account feed; None: unknown.
        accounts: Until when the broker has confirmed each account.
    """
    nothing = AccountConfirmation(None)
    confirmed = [accounts.get(position.account, nothing) for position in positions]
    holdings = rows_of_positions(positions, session)
    rows = holdings.with_columns(
        gateway_id=lit(gateway_id),
        captured_at=moment(captured_at),
        account_confirmed_at=moments(account.confirmed_at for account in confirmed),
        account_followed_until=moments(account.followed_until for account in confirmed),
    )
    return rows.unique(KEY, keep="last", maintain_order=True)


def newest(rows: DataFrame) -> DataFrame:
    """Return the row of each holding that was added last.

    Args:
        rows: Rows of one gateway.
    """
    # The rows keep their order, and only three columns are sorted.
    numbered = rows.select(*KEY, "published_version").with_row_index("place")
    in_order = numbered.sort("published_version", maintain_order=True)
    return rows[in_order.unique(KEY, keep="last", maintain_order=True)["place"]]


def with_account_facts(rows: DataFrame) -> DataFrame:
    """Copy completeness and confirmation from the newest row of each account into the older rows.

    A commit stores them in the rows that it adds, while they apply to all holdings of the account:
    a confirmation to each but a value that no message has confirmed yet, and the time of the newest
    messages of PnLSingle to the followed ones.

    Args:
        rows: The newest row of each holding of one gateway.
    """
    facts = rows.select(
        "account",
        _version="published_version",
        _completeness="completeness",
        _confirmed_at="account_confirmed_at",
        _followed_until="account_followed_until",
    )
    facts = facts.sort("_version").unique("account", keep="last")
    version = col._version  # of the commit that has the newest facts of the account
    own_version = col.published_version.fill_null(-1)  # rows of older releases have none
    # As in `HoldingsBook`: a value of which no message came stays unconfirmed; without a
    # value there is only the quantity, which a list confirms.
    may_be_confirmed = col.confirmed_at.is_not_null() | col.market_value.is_null()

    # A row has the completeness of its own commit, and a newer one counts in its place; the
    # confirmation of its own commit applies to it too (>=).
    is_newer = version > own_version
    is_confirmed = may_be_confirmed & (version >= own_version)
    is_followed = col.followed & (version >= own_version)
    confirmed_at = max_horizontal("confirmed_at", "_confirmed_at")
    received_at = max_horizontal("received_at", "_followed_until")

    joined = rows.join(facts, on="account", how="left", maintain_order="left")
    completed = joined.with_columns(
        completeness=when(is_newer).then("_completeness").otherwise("completeness"),
        confirmed_at=when(is_confirmed).then(confirmed_at).otherwise("confirmed_at"),
        received_at=when(is_followed).then(received_at).otherwise("received_at"),
    )
    return completed.select(rows.columns)


def is_fragmented(files: DataFrame, added: int) -> bool:
    """Return whether all rows should be replaced by one file.

    This bounds what a reader reads to about twice the newest rows.

    Args:
        files: The data files of one gateway.
        added: The number of rows of the present commit.
    """
    # The largest file is that of the last replacement; the others are changes since. They
    # may be as many rows as it has; of a small gateway FOLD_FILES, else it would be replaced often.
    counts = files["num_records"].drop_nulls()
    largest = max(counts, default=0)
    changes = sum(counts) - largest + added
    return files.height >= FOLD_FILES or changes > max(largest, FOLD_FILES)


class BrokerPositionsTable:
    """The table `broker_positions`: the newest row of each (gateway_id, account, conid) counts.

    `_replaced` has, by gateway, what `_base` returned at the last `replace`. While it returns the
    same, `update` may add to those rows.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self._replaced: dict[str, tuple[int | None, ...]] = {}
        # The rows of each gateway that were read last, and the files that have them.
        self._cached: dict[str, tuple[frozenset[str], DataFrame]] = {}

    def replace(
        self,
        gateway_id: str,
        positions: Iterable[BrokerPosition],
        session: GatewaySession | None = None,
        *,
        captured_at: datetime | None = None,
        accounts: Mapping[str, AccountConfirmation] | None = None,
    ) -> int:
        """Replace all rows of the gateway in one commit, and return the table's version.

        Rows with position 0 are stored as they are: each records that a holding was closed.

        Args:
            gateway_id: The gateway.
            positions: Its rows.
            session: The lease of the writer.
            captured_at: When the rows were taken from the account feed.
            accounts: Until when the broker has confirmed each account.

        Raises:
            LeaseLostError: An owner with a newer session has written already.
            TradingModeError: The table holds accounts of another trading mode.
        """
        rows = rows_to_publish(gateway_id, list(positions), session, captured_at, accounts or {})
        modes = rows["trading_mode"].unique()

        def step(handle: DeltaTable) -> int:
            # The owner is stored as the newest: one with a smaller token is refused from now on.
            owner = None if session is None else (gateway_id, session.fencing_token)
            bind(handle, self.table.path, modes, owner)
            commits.write(
                handle,
                _numbered(rows, handle),
                _commit_info(session),
                predicate=_rows_of(gateway_id),
            )
            # `update` adds to these rows while it finds the same.
            self._replaced[gateway_id] = self._base(handle, gateway_id, session)
            return handle.version()

        return self.table.transact(step)

    def update(
        self,
        gateway_id: str,
        changed: Iterable[BrokerPosition],
        session: GatewaySession | None = None,
        *,
        captured_at: datetime | None = None,
        accounts: Mapping[str, AccountConfirmation],
    ) -> int | None:
        """Add the rows that changed since the last commit; return the table's version.

        The other rows stay as they are.

        Args:
            gateway_id: The gateway.
            changed: The rows that changed.
            session: The lease of the writer.
            captured_at: When the rows were taken from the account feed.
            accounts: Until when the broker has confirmed each account. Like the
                completeness of the rows, it applies to all rows of the account.

        Returns:
            None if nothing was written: call `replace`. This session has not called it on this
            table yet, or the changes are many (`is_fragmented`). The owner has all rows in memory;
            to read them here would take several times their size.

        Raises:
            LeaseLostError: An owner with a newer session has written already.
            TradingModeError: The table holds accounts of another trading mode.
        """
        rows = rows_to_publish(gateway_id, list(changed), session, captured_at, accounts)
        modes = rows["trading_mode"].unique()

        def step(handle: DeltaTable) -> int | None:
            # None, and nothing is written, where `replace` has to come first: it was called for
            # another session or table, or there are too many files. `bind` checks the trading mode.
            bind(handle, self.table.path, modes)
            if self._replaced.get(gateway_id) != self._base(handle, gateway_id, session):
                return None

            if is_fragmented(files_in(handle, gateway_id=gateway_id), rows.height):
                return None

            commits.write(handle, _numbered(rows, handle), _commit_info(session))
            return handle.version()

        return self.table.transact(step)

    def read(self, gateway_id: str) -> list[BrokerPosition]:
        """Return the gateway's rows as values, in the order of account and conid."""
        return broker_positions_of(self.rows(gateway_id))

    def rows(self, gateway_id: str) -> DataFrame:
        """Return the gateway's rows as a frame, in the order of account and conid.

        It is the same object until the owner of the gateway writes again.
        """
        return self.table.snapshot(lambda handle: self._rows(handle, gateway_id))

    def _rows(self, handle: DeltaTable, gateway_id: str) -> DataFrame:
        """Return the gateway's rows, from memory if they lie in the same files as before."""
        present = files_in(handle, gateway_id=gateway_id)
        files = frozenset(present["path"])
        before, rows = self._cached.get(gateway_id, (frozenset(), self.table.spec.empty))
        if files != before:
            newest_rows = newest(self.table.read_rows(present))
            rows = with_account_facts(newest_rows.sort(KEY))
            self._cached[gateway_id] = (files, rows)
        return rows

    def _base(
        self, handle: DeltaTable, gateway_id: str, session: GatewaySession | None
    ) -> tuple[int | None, ...]:
        """Return the table's generation, the session's token, and that of the gateway's owner.

        `update` adds rows only while they are as at the last `replace`: otherwise the rows that it
        would add to may be others. An owner is stored by `replace` (`bind`) alone. The generation
        grows when the table may have been created again or restored.

        Raises:
            LeaseLostError: An owner with a newer session has written already.
        """
        generation, _version = self.table.cache_key(handle)
        if session is None:
            return (generation,)

        token = session.fencing_token
        return (generation, token, refuse_stale_owner(handle, gateway_id, token))


def _numbered(rows: DataFrame, handle: DeltaTable) -> DataFrame:
    return rows.with_columns(published_version=lit(handle.version() + 1, pl.Int64))


def _commit_info(session: GatewaySession | None) -> dict[str, str]:
    return {"session_id": session.session_id} if session else {}


def _rows_of(gateway_id: str) -> str:
    return f"gateway_id = {text_literal(gateway_id)}"
