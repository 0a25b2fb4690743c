"""The fence: a table remembers the newest owner of a gateway, and refuses those before it."""

from position_sync_dagster.errors import LeaseLostError


def owner_transaction(gateway_id: str) -> str:
    """Name the application transaction whose version is the newest owner's fencing token."""
    return f"owner:{gateway_id}"


def refuse_stale_owner(token: int, newest: int | None, gateway_id: str) -> None:
    """Refuse an owner that another one has followed.

    Raises:
        LeaseLostError: `newest` is greater than `token`.
    """
    if newest is not None and token < newest:
        raise LeaseLostError(
            f"The login {gateway_id} has a newer owner (token {newest}; this session has {token}).",
            remedy="End this session; the newer owner writes for the login.",
        )
