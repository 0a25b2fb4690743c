"""Fencing: a table remembers the newest owner of a gateway and refuses those before it."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from deltalake import DeltaTable, Transaction

from position_sync_dagster.errors import LeaseLostError

OWNERS = "owners"
"""The entry of a commit's information that names the gateways whose newest owner it records."""

LOOKED_AT = 20
"""New commits that are looked at one by one. To ask for an owner reads the log since the last
checkpoint: in an object store that is a request for each of up to 50 entries."""

_OWNER = "owner:"

_Key = tuple[int, int]
"""Generation and version of a table."""


class _Known(NamedTuple):
    key: _Key
    token: int | None


class NewestOwners:
    """The newest owner of each gateway in a table, without reading the log for each commit.

    What is known of a version holds for the next one if that is a commit of this process, or says
    that it records no other owner of the gateway. Used in a step only: it is not locked.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def newest(self, handle: DeltaTable, gateway_id: str, key: _Key) -> int | None:
        """Return the token of the gateway's newest owner in the handle's version; None for none.

        Args:
            key: The table's cache key of the handle.
        """
        known = self._known.get(gateway_id)
        if known is None or known.key[0] != key[0] or not _holds(known, handle, gateway_id, key):
            known = _Known(key, handle.transaction_version(owner_transaction(gateway_id)))
        known = self._known[gateway_id] = known._replace(key=key)
        return known.token

    def committed(self, before: _Key, after: _Key) -> None:
        """Take notice of a change of this process that records no owner."""
        if after == (before[0], before[1] + 1):
            for gateway_id, known in self._known.items():
                if known.key == before:
                    self._known[gateway_id] = known._replace(key=after)

    def forget(self, gateway_id: str) -> None:
        """Forget the owner of a gateway, because another one is recorded."""
        self._known.pop(gateway_id, None)


def _holds(known: _Known, handle: DeltaTable, gateway_id: str, key: _Key) -> bool:
    """Return whether no commit since then can have recorded another owner of the gateway."""
    added = key[1] - known.key[1]
    if not 0 <= added <= LOOKED_AT:
        return False
    if not added:
        return True
    entries = handle.history(added)  # and what others have committed since the handle's version
    return len(entries) >= added and not any(_may_record(one, gateway_id) for one in entries)


def _may_record(entry: dict[str, Any], gateway_id: str) -> bool:
    named = entry.get(OWNERS)
    if named is None:
        # Of an older release, or no commit of rows: those record no owner.
        return entry.get("operation") == "WRITE"
    return gateway_id in str(named).split("\n")


def owners_named(transactions: Iterable[Transaction]) -> str:
    """Return the entry `OWNERS` of a commit with these application transactions."""
    named = (one.app_id for one in transactions)
    return "\n".join(name.removeprefix(_OWNER) for name in named if name.startswith(_OWNER))


def owner_transaction(gateway_id: str) -> str:
    """Return the name of the application transaction whose version is the newest owner's token."""
    return f"{_OWNER}{gateway_id}"


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
