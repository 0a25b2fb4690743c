"""Changed keys, collected for each watcher until it takes them."""

import asyncio
from typing import Generic, TypeVar
from weakref import ref

K = TypeVar("K")
V = TypeVar("V")


class PendingChanges(Generic[K, V]):
    """The keys that changed since a watcher last took them, each with its first value.

    Attributes:
        urgent: Set by a change that should be taken at once; cleared by `take`.

    >>> changes = PendingChanges()
    >>> changes.note("a", 1); changes.note("a", 2); changes.note("b", 3)
    >>> changes.take(), changes.take()
    ({'a': 1, 'b': 3}, {})
    """

    def __init__(self) -> None:
        self._noted: dict[K, V] = {}
        self.urgent = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._noted)

    def __contains__(self, key: K) -> bool:
        return key in self._noted

    def take(self) -> dict[K, V]:
        """Return what changed since the last call, and start anew."""
        noted, self._noted = self._noted, {}
        self.urgent.clear()
        return noted

    def give_back(self, noted: dict[K, V]) -> None:
        """Put back changes that could not be processed."""
        self._noted = noted | {k: v for k, v in self._noted.items() if k not in noted}

    def note(self, key: K, value: V, *, urgent: bool = False) -> None:
        """Add a change, unless the key has one already."""
        self._noted.setdefault(key, value)
        if urgent:
            self.urgent.set()

    def forget(self, key: K) -> None:
        """Remove the change of a key."""
        self._noted.pop(key, None)


class ChangeNotifier(Generic[K, V]):
    """Passes each change to every watcher; a watcher that nobody holds any more is dropped."""

    def __init__(self) -> None:
        self._watchers: list[ref[PendingChanges[K, V]]] = []

    def watch(self) -> PendingChanges[K, V]:
        """Return a new watcher, which collects the changes from now on."""
        watcher: PendingChanges[K, V] = PendingChanges()
        self._watchers = [*self._alive(), ref(watcher)]
        return watcher

    def note(self, key: K, value: V, *, urgent: bool = False) -> None:
        """Add a change to every watcher."""
        for found in self._watchers:
            if (watcher := found()) is not None:
                watcher.note(key, value, urgent=urgent)

    def forget(self, key: K) -> None:
        """Remove the change of a key from every watcher."""
        for found in self._watchers:
            if (watcher := found()) is not None:
                watcher.forget(key)

    def _alive(self) -> "list[ref[PendingChanges[K, V]]]":
        return [found for found in self._watchers if found() is not None]
