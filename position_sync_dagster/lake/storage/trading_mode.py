"""A table remembers the trading mode of its first data and refuses data of other modes."""

from collections.abc import Iterable

from deltalake import DeltaTable

from position_sync_dagster.domain.update import TradingMode
from position_sync_dagster.errors import TradingModeError
from position_sync_dagster.lake.schema.table_spec import MODE_PROPERTY
from position_sync_dagster.lake.storage.commit_errors import RetryCommit


def mode_of(handle: DeltaTable) -> TradingMode | None:
    """Return the trading mode of the table; None before its first data."""
    text = handle.metadata().configuration.get(MODE_PROPERTY)
    return TradingMode(text) if text else None


def check_mode(handle: DeltaTable, modes: Iterable[TradingMode], path: str) -> None:
    """Check that data of these trading modes may go into the table; call it in a step only.

    The mode of the first data is stored in a commit of its own, after which the step runs again.

    Raises:
        TradingModeError: The table holds another mode's data, or the data are of several.
    """
    offered = sorted(set(modes))
    remembered = mode_of(handle)
    if not offered or (remembered is not None and offered == [remembered]):
        return
    if remembered is None and len(offered) == 1:
        handle.alter.set_table_properties(
            {MODE_PROPERTY: offered[0].value}, raise_if_not_exists=False
        )
        raise RetryCommit
    wrong = ", ".join(mode.value for mode in offered if mode is not remembered)
    raise TradingModeError(
        f"{path} holds {remembered.value if remembered else 'no'} data and was given {wrong}.",
        remedy="Give each trading mode its own lake: set POSITION_SYNC_LAKE to another folder, or "
        "point POSITION_SYNC_GATEWAY_PORT at the account that this lake belongs to.",
    )
