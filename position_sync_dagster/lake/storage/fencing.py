"""Fencing: a table remembers the newest owner of a gateway and refuses those before it.

The token of the newest owner is a property of the table. An open handle has the properties in
memory, so that each commit checks it without a request; and a commit that was planned before the
property changed conflicts with the change.
"""

from deltalake import CommitProperties, DeltaTable

from position_sync_dagster.errors import LeaseLostError

_PROPERTY = "positionSync.owner."


def newest_token(handle: DeltaTable, gateway_id: str) -> int | None:
    """Return the fencing token of the newest owner of a gateway; None before the first."""
    text = handle.metadata().configuration.get(_PROPERTY + gateway_id)
    if text is not None:
        return int(text)
    # Where releases before kept it: in the log, which is read back to the last checkpoint.
    return handle.transaction_version(f"owner:{gateway_id}")


def refuse_stale_owner(token: int, newest: int | None, gateway_id: str) -> None:
    """Refuse an owner that was followed by another one.

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

    The handle is at the version of the fence then, so that the step may go on.

    Raises:
        LeaseLostError: An owner with a greater token has fenced the table already.
    """
    newest = newest_token(handle, gateway_id)
    refuse_stale_owner(token, newest, gateway_id)
    if newest == token and _PROPERTY + gateway_id in handle.metadata().configuration:
        return
    handle.alter.set_table_properties(
        {_PROPERTY + gateway_id: str(token)},
        raise_if_not_exists=False,
        commit_properties=CommitProperties(custom_metadata={"action": "fence"}),
    )
