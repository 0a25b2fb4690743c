"""What happened since one's last look: each watcher has its own."""

import asyncio
from typing import Generic, TypeVar
from weakref import WeakSet

K = TypeVar("K")
V = TypeVar("V")


class PendingChanges(Generic[K, V]):
    """The keys that something happened to, each with the first value noted for it.

    Attributes:
        urgent: Set from a note that should not wait for the next look, until that look.
    """

    def __init__(self) -> None:
        self._noted: dict[K, V] = {}
        self.urgent = asyncio.Event()

    def take(self) -> dict[K, V]:
        """Give what was noted since the last call, and start anew."""
        noted, self._noted = self._noted, {}
        self.urgent.clear()
        return noted

    def give_back(self, noted: dict[K, V]) -> None:
        """Take back what could not be dealt with."""
        self._noted = noted | {k: v for k, v in self._noted.items() if k not in noted}

    def note(self, key: K, value: V, *, urgent: bool = False) -> None:
        """Note that something happened to a key."""
        self._noted.setdefault(key, value)
        if urgent:
            self.urgent.set()

    def forget(self, key: K) -> None:
        """Drop what was noted of a key."""
        self._noted.pop(key, None)


class ChangeNotifier(Generic[K, V]):
    """Everybody who watches; one that is dropped is forgotten by itself."""

    def __init__(self) -> None:
        self._watches: WeakSet[PendingChanges[K, V]] = WeakSet()

    def new(self) -> PendingChanges[K, V]:
        """Give a watcher of its own."""
        watch: PendingChanges[K, V] = PendingChanges()
        self._watches.add(watch)
        return watch

    def note(self, key: K, value: V, *, urgent: bool = False) -> None:
        """Tell every watcher."""
        for watch in self._watches:
            watch.note(key, value, urgent=urgent)

    def forget(self, key: K) -> None:
        """Let every watcher drop a key."""
        for watch in self._watches:
            watch.forget(key)
