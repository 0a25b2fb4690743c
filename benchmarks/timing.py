"""Measuring: milliseconds, medians, and samples by name."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Samples:
    """Milliseconds by name."""

    def __init__(self) -> None:
        self._of: dict[str, list[float]] = defaultdict(list)

    def time(self, name: str, work: Callable[[], T]) -> T:
        """Do some work and keep how long it took."""
        began = time.perf_counter()
        result = work()
        self._of[name].append((time.perf_counter() - began) * 1000)
        return result

    def of(self, *names: str) -> list[float]:
        """Give the sums of samples that were taken together."""
        return [sum(together) for together in zip(*(self._of[name] for name in names), strict=True)]

    def median(self, *names: str) -> float:
        """Give the median of those sums."""
        return median(self.of(*names))


def median(values: Sequence[float]) -> float:
    """Give the median."""
    return statistics.median(values)


def elapsed_ms(work: Callable[[], object]) -> float:
    """Give how long some work took."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000
