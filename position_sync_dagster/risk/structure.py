"""What the name of a strategy says that its legs are, and which leg no longer fits."""

from collections import Counter
from collections.abc import Mapping, Sequence

from position_sync_dagster.risk.priced_legs import PricedLeg
from position_sync_dagster.risk.terms import ExerciseTerms

# The quantities of the options of a structure, by strike, whatever their signs. A name says its
# structure if it contains one of these words; the first one counts.
QUANTITIES: Mapping[str, Sequence[int]] = {
    "iron-butterfly": (1, 1, 1, 1),
    "broken-wing-butterfly": (1, 2, 1),
    "butterfly": (1, 2, 1),
    "condor": (1, 1, 1, 1),
    "box": (1, 1, 1, 1),
    "vertical": (1, 1),
    "call-spread": (1, 1),
    "put-spread": (1, 1),
    "credit-spread": (1, 1),
    "debit-spread": (1, 1),
    "strangle": (1, 1),
    "straddle": (1, 1),
    "risk-reversal": (1, 1),
    "double-calendar": (1, 1, 1, 1),
    "double-diagonal": (1, 1, 1, 1),
    "calendar": (1, 1),
    "diagonal": (1, 1),
    "collar": (1, 1),
    "jade-lizard": (1, 1, 1),
}


def structure_note(name: str, legs: Sequence[PricedLeg]) -> str | None:
    """Return which leg is over or short of what the name of a strategy says; None: none is.

    Args:
        name: The name of the strategy, such as "iron-condor-1".
        legs: Its parts of holdings, of one underlying.
    """
    word = _word_of(name)
    if word is None:
        return None

    options = [leg for leg in legs if isinstance(leg.delivered, ExerciseTerms)]
    options.sort(key=lambda leg: (leg.row["strike"], leg.row["right"] == "CALL"))
    wanted = QUANTITIES[word]
    if len(options) != len(wanted):
        return f"no {word} any more: it has {len(options)} of {len(wanted)} option legs"

    units = []
    for leg, quantity in zip(options, wanted, strict=True):
        units.append(abs(leg.quantity) / quantity)
    usual = _most_common(units)

    differences = []
    for leg, quantity in zip(options, wanted, strict=True):
        surplus = abs(leg.quantity) - usual * quantity
        if abs(surplus) > 1e-9 * abs(leg.quantity):
            side = "over" if surplus > 0 else "short"
            differences.append(f"{leg.name} is {abs(surplus):.15g} {side}")
    return f"no {word} any more: {', '.join(differences)}" if differences else None


def _word_of(name: str) -> str | None:
    """Return the structure that a name says; None: it says none."""
    text = name.lower().replace("_", "-").replace(" ", "-")
    for word in QUANTITIES:
        if word in text:
            return word
    return None


def _most_common(units: Sequence[float]) -> float:
    """Return the number that most legs have; of several the smallest."""
    counts = Counter(units)
    return min(counts, key=lambda number: (-counts[number], number))
