"""Changed keys, collected for each watcher until it takes them."""

import asyncio
from collections.abc import Iterable
from typing import Generic, TypeVar
from weakref import WeakSet

K = TypeVar("K")


class PendingChanges(Generic[K]):
    """The keys that changed since a watcher last took them.

    Attributes:
        urgent: Set by a change that should be taken at once; cleared by `take`.

    >>> changes = PendingChanges()
    >>> changes.note("a"); changes.note("a"); changes.note("b")
    >>> sorted(changes.take()), changes.take()
    (['a', 'b'], set())
    """

    def __init__(self) -> None:
        self._noted: set[K] = set()
        self.urgent = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._noted)

    def __contains__(self, key: K) -> bool:
        return key in self._noted

    def take(self) -> set[K]:
        """Return what changed since the last call, and start anew."""
        noted, self._noted = self._noted, set()
        self.urgent.clear()
        return noted

    def give_back(self, noted: Iterable[K]) -> None:
        """Put back changes that could not be processed."""
        self._noted.update(noted)

    def note(self, key: K, *, urgent: bool = False) -> None:
        """Add a change."""
        self._noted.add(key)
        if urgent:
            self.urgent.set()

    def forget(self, key: K) -> None:
        """Remove the change of a key."""
        self._noted.discard(key)


class ChangeNotifier(Generic[K]):
    """Passes each change to every watcher; a watcher that nobody holds any more is dropped."""

    def __init__(self) -> None:
        self._watchers: WeakSet[PendingChanges[K]] = WeakSet()

    def watch(self) -> PendingChanges[K]:
        """Return a new watcher, which collects the changes from now on."""
        watcher: PendingChanges[K] = PendingChanges()
        self._watchers.add(watcher)
        return watcher

    def note(self, key: K, *, urgent: bool = False) -> None:
        """Add a change to every watcher."""
        for watcher in self._watchers:
            watcher.note(key, urgent=urgent)

    def forget(self, key: K) -> None:
        """Remove the change of a key from every watcher."""
        for watcher in self._watchers:
            watcher.forget(key)
