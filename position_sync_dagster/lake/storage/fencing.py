"""Fencing: a table remembers the newest owner of a gateway and refuses those before it."""

from position_sync_dagster.errors import LeaseLostError


def owner_transaction(gateway_id: str) -> str:
    """Return the name of the application transaction whose version is the newest owner's token."""
    return f"owner:{gateway_id}"


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
