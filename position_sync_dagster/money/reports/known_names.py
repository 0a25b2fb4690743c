"""Which names a person may give: an unknown one is an error, and no answer without anything in it.

The commands, `/api/v1` and the tools for an assistant have this rule.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from position_sync_dagster.errors import LakeError, UserError, shown


class UnknownNameError(LakeError, UserError):
    """There is no account, underlying or strategy of this name.

    The message names the nearest ones.
    """


class UnknownStrategyError(UnknownNameError):
    """No leg of the named strategy is active, or none has its contract."""

    page = "docs/strategies.md"


# How many of the nearest names an error lists, and how much of an unknown one is compared.
MOST_NEAREST = 5
COMPARED = 60


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the sentence that lists the known names nearest to another one.

    >>> nearest("Iron-condr", ["hedge", "iron-condor"])
    'The nearest are: iron-condor, hedge.'
    """
    by_text = {text.casefold(): text for text in sorted(known)}
    texts = get_close_matches(name[:COMPARED].casefold(), by_text, MOST_NEAREST, cutoff=0.0)
    names = ", ".join(by_text[text] for text in texts)
    if names:
        return f"The nearest are: {names}."
    return "None is known yet."


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNames:
    """The names that mean something.

    Attributes:
        strategies: Those with an active leg.
        ended: Those that may be asked for besides, because what they were is asked for; None: none.
        unresolved: Strategies with a leg whose contract is still to be found.
        accounts: Those of the logins and of all holdings.
        underlyings: The symbols of all holdings and legs, also of those that are closed.
    """

    strategies: frozenset[str] = frozenset()
    ended: frozenset[str] | None = None
    unresolved: frozenset[str] = frozenset()
    accounts: frozenset[str] = frozenset()
    underlyings: frozenset[str] = frozenset()

    def require(
        self,
        *,
        strategy: str | None = None,
        account: str | None = None,
        underlying: str | None = None,
    ) -> None:
        """Raise if a name is given that is not known; symbols are in upper or lower case.

        Raises:
            UnknownNameError: There is no such account or underlying.
            UnknownStrategyError: There is no such strategy, or none of its legs has its contract.
        """
        symbols = {symbol.upper() for symbol in self.underlyings}
        _require("account", account, self.accounts)
        _require("underlying", underlying and underlying.upper(), symbols)

        strategies = self.strategies | (self.ended or frozenset())
        if strategy is None or strategy in strategies:
            return
        if strategy in self.unresolved:
            raise UnknownStrategyError(
                f"No leg of the strategy {shown(strategy)} has its contract yet.",
                remedy="`position-sync strategies list` says why.",
            )
        kind = "strategy"
        if self.ended is None:
            kind = "active strategy"
        what = f"There is no {kind} {shown(strategy)}"
        if strategy.upper() in symbols:
            what += f": {strategy.upper()} is an underlying"
        remedy = f"{nearest(strategy, strategies)} `position-sync strategies list` has all."
        raise UnknownStrategyError(f"{what}.", remedy=remedy)


def _require(kind: str, name: str | None, known: Collection[str]) -> None:
    if name is not None and name not in known:
        remedy = nearest(name, known)
        raise UnknownNameError(f"There is no {kind} {shown(name)}.", remedy=remedy)
