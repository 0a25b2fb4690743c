"""Checks by which a table refuses older owners of a gateway and data of another trading mode.

The token of the newest owner is a property of the table. An open handle has the properties in
memory, so that each commit checks it without a request; and a commit that was planned before the
property changed conflicts with the change.
"""

from collections.abc import Iterable

from deltalake import CommitProperties, DeltaTable

from position_sync_dagster.domain.update import TradingMode
from position_sync_dagster.errors import LeaseLostError, TradingModeError
from position_sync_dagster.lake.schema.table_spec import MODE_PROPERTY
from position_sync_dagster.lake.storage.commit_errors import RetryCommit

_PROPERTY = "positionSync.owner."


def newest_token(handle: DeltaTable, gateway_id: str) -> int | None:
    """Return the fencing token of the newest owner of a gateway; None before the first."""
    text = handle.metadata().configuration.get(_PROPERTY + gateway_id)
    return None if text is None else int(text)


def refuse_stale_owner(token: int, newest: int | None, gateway_id: str) -> None:
    """Refuse an owner if the gateway has a newer one.

    Raises:
        LeaseLostError: `newest` is greater than `token`.
    """
    if newest is not None and token < newest:
        raise LeaseLostError(
            f"The login {gateway_id} has a newer owner (token {newest}; this session has {token}).",
            remedy="End this session; the newer owner writes for the login.",
        )


def fence(handle: DeltaTable, gateway_id: str, token: int) -> None:
    """Refuse owners of the gateway with a smaller token from now on; call it in a step only.

    Afterwards the handle is at the version of the fence, so that the step may continue.

    Raises:
        LeaseLostError: An owner with a greater token has fenced the table already.
    """
    newest = newest_token(handle, gateway_id)
    refuse_stale_owner(token, newest, gateway_id)
    if newest == token:
        return
    handle.alter.set_table_properties(
        {_PROPERTY + gateway_id: str(token)},
        raise_if_not_exists=False,
        commit_properties=CommitProperties(custom_metadata={"action": "fence"}),
    )


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
