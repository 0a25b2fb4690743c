"""The holdings of a login by conid and by account, kept as holdings come."""

from collections.abc import Container

from position_sync_dagster.domain.broker_position import BrokerPosition, Key


class HoldingIndex:
    """Finds holdings without a look at all of them.

    A login has few accounts, so that the holdings of a conid are looked for in each of them.

    Args:
        keys: The keys of all holdings, followed as they come.

    Attributes:
        moves: How often a holding came, was opened or was closed.
    """

    def __init__(self, keys: Container[Key]) -> None:
        self.moves = 0
        self._keys = keys
        self._one_of: dict[str, Key] = {}

    def put(self, before: BrokerPosition | None, key: Key, holding: BrokerPosition) -> None:
        """Follow a holding that takes the place of another state of it, or is new."""
        if before is None or (before.position == 0) != (holding.position == 0):
            self.moves += 1
        if holding.position or key[0] not in self._one_of:
            self._one_of[key[0]] = key

    def keys_of(self, conid: int) -> tuple[Key, ...]:
        """Return the keys of the holdings of a conid."""
        return tuple(key for name in self._one_of if (key := (name, conid)) in self._keys)

    def one_of(self, account: str) -> Key | None:
        """Return the key of some holding of an account; None where it has none."""
        return self._one_of.get(account)
