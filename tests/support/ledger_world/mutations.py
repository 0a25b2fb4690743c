"""Errors that are planted into the program: one line of one function each."""

import inspect
import textwrap
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import pytest

from position_sync_dagster.money.past import attribution, booking, movement_sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """An error.

    Attributes:
        where: The class or module that has the function.
        function: Its name.
        lines: What its source has, and what takes the place of it.
    """

    where: Any
    function: str
    lines: dict[str, str]

    def plant(self, patch: pytest.MonkeyPatch) -> None:
        """Put the error into the program, also where other modules have the function."""
        original = getattr(self.where, self.function)
        patch.setattr(original, "__code__", self._mutant(original).__code__)

    def _mutant(self, original: FunctionType) -> FunctionType:
        source = textwrap.dedent(inspect.getsource(original))
        for line, mutant in self.lines.items():
            assert line in source, f"{self.function} has no {line} any more"
            source = source.replace(line, mutant)
        names = dict(original.__globals__)
        exec(compile(source, self.function, "exec", dont_inherit=True), names)  # noqa: S102
        mutant = names[self.function]
        assert isinstance(mutant, FunctionType)
        return mutant


_BOOKER = booking._Booker
MUTATIONS = {
    "last in, first out": Mutation(
        where=_BOOKER, function="_trade",
        lines={"held[0]": "held[-1]", "popleft": "pop", "appendleft": "append"},
    ),
    "an owner swapped": Mutation(
        where=attribution._Holding, function="_openers",
        lines={"in openers.items()": "in zip(reversed([*openers]), openers.values(), strict=True)"},
    ),
    "a cost dropped": Mutation(
        where=_BOOKER, function="_bring",
        lines={"cash=known_sum([share.cash, share.paid])": "cash=0.0"},
    ),
    "an edge doubled": Mutation(
        where=_BOOKER, function="_trade",
        lines={"opened=opened, by=closing))": "opened=opened, by=closing))\n        "
               "self.edges.append(self.edges[-1])"},
    ),
    "a wrong ratio": Mutation(
        where=_BOOKER, function="_come",
        lines={"whole / total": "total / whole"},
    ),
    "UNEXPLAINED at 0": Mutation(
        where=movement_sources, function="unexplained_movement",
        lines={"quantity=by": "quantity=by, cash=0.0"},
    ),
}  # fmt: skip
