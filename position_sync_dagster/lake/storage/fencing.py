"""Who may write to a table: the newest owner of each gateway, and one trading mode.

Both are properties of the table. An open handle has the properties in memory, so that each commit
checks them without a request; and a commit that was planned before a property changed conflicts
with the change.
"""

from collections.abc import Iterable, Mapping

from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties

from position_sync_dagster import errors
from position_sync_dagster.domain.update import TradingMode
from position_sync_dagster.lake.schema import codec, table_spec

NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
"""A commit writes no checkpoint and cuts no log: `Table` does, once the commit is synced."""

_PROPERTY = "positionSync.owner."


def newest_token(handle: DeltaTable, gateway_id: str) -> int | None:
    """Return the fencing token of the newest owner of a gateway; None before the first."""
    text = handle.metadata().configuration.get(_PROPERTY + codec.storable(gateway_id))
    return None if text is None else int(text)


def refuse_stale_owner(token: int, newest: int | None, gateway_id: str) -> None:
    """Refuse an owner if the gateway has a newer one.

    Raises:
        LeaseLostError: `newest` is greater than `token`.
    """
    if newest is not None and token < newest:
        raise errors.LeaseLostError(
            f"The login {gateway_id} has a newer owner (token {newest}; this session has {token}).",
            remedy="End this session; the newer owner writes for the login.",
        )


def fence(handle: DeltaTable, gateway_id: str, token: int) -> None:
    """Refuse owners of the gateway with a smaller token from now on; call it in a step only.

    Afterwards the handle is at the version of the fence, so that the step may continue.

    Raises:
        LeaseLostError: An owner with a greater token has fenced the table already.
    """
    set_properties(handle, fencing(handle, gateway_id, token), action="fence")


def fencing(handle: DeltaTable, gateway_id: str, token: int) -> dict[str, str]:
    """Return what a table must store to refuse owners with a smaller token; {} if it has that.

    Raises:
        LeaseLostError: An owner with a greater token has fenced the table already.
    """
    newest = newest_token(handle, gateway_id)
    refuse_stale_owner(token, newest, gateway_id)
    return {} if newest == token else {_PROPERTY + codec.storable(gateway_id): str(token)}


def set_properties(handle: DeltaTable, properties: Mapping[str, str], *, action: str) -> None:
    """Store properties of the table, in one commit; call it in a step, before it reads.

    Nothing else of the process runs meanwhile: delta-rs keeps the interpreter for itself.
    """
    if properties:
        handle.alter.set_table_properties(
            dict(properties),
            raise_if_not_exists=False,
            commit_properties=CommitProperties(custom_metadata={"action": action}),
            post_commithook_properties=NO_HOOKS,
        )


def mode_of(handle: DeltaTable) -> TradingMode | None:
    """Return the trading mode of the table; None before its first data."""
    text = handle.metadata().configuration.get(table_spec.MODE_PROPERTY)
    return TradingMode(text) if text else None


def check_mode(handle: DeltaTable, modes: Iterable[TradingMode], path: str) -> None:
    """Check that data of these trading modes may go into the table; call it in a step only.

    The mode of the first data is stored in a commit of its own, after which the step goes on.

    Raises:
        TradingModeError: The table holds another mode's data, or the data are of several.
    """
    set_properties(handle, first_mode(handle, modes, path), action="mode")


def first_mode(handle: DeltaTable, modes: Iterable[TradingMode], path: str) -> dict[str, str]:
    """Return the trading mode that a table must store; {} if it has that, or without data.

    Raises:
        TradingModeError: The table holds another mode's data, or the data are of several.
    """
    offered = sorted(set(modes))
    remembered = mode_of(handle)
    if not offered or (remembered is not None and offered == [remembered]):
        return {}
    if remembered is None and len(offered) == 1:
        return {table_spec.MODE_PROPERTY: offered[0].value}
    wrong = ", ".join(mode.value for mode in offered if mode is not remembered)
    raise errors.TradingModeError(
        f"{path} holds {remembered.value if remembered else 'no'} data and was given {wrong}.",
        remedy="Give each trading mode its own lake: set POSITION_SYNC_LAKE to another folder, or "
        "point POSITION_SYNC_GATEWAY_PORT at the account that this lake belongs to.",
    )
