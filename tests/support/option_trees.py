"""The trees of the simulator's options, which each simulator of a book would make anew."""

from functools import wraps

from ib_gateway_simulator.market.early_exercise import EarlyExercise, _Tree

# A simulator of a large book makes some hundreds.
MOST = 2_000


def keep_trees() -> None:
    """Make the tree of the same option and volatility once per process; it takes six milliseconds.

    The terms of an option at the previous close are the same in each simulator of a day.
    """
    make = EarlyExercise._tree
    if hasattr(make, "__wrapped__"):
        return
    kept: dict[tuple[object, ...], _Tree] = {}

    @wraps(make)
    def tree(self: EarlyExercise, volatility: float) -> _Tree:
        place = (self._years, self._rate, self._carry, self._side, *self._kept, volatility)
        key = (*place, *self._at_dividends.items())
        if key not in kept:
            if len(kept) == MOST:
                kept.clear()
            kept[key] = make(self, volatility)
        return kept[key]

    EarlyExercise._tree = tree  # type: ignore[method-assign]
