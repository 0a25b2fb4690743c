"""The limits of a strategy or an account, and whether a reading keeps them; pure.

If the measure of a limit is not known, the limit is UNKNOWN: neither broken nor kept.
"""

import re
import zlib
from dataclasses import dataclass
from enum import StrEnum


class Measure(StrEnum):
    """What a limit is about."""

    UNREALIZED_PNL = "unrealized_pnl"
    DAILY_PNL = "daily_pnl"
    DOLLAR_DELTA = "dollar_delta"
    THETA = "theta"
    VEGA = "vega"
    DAYS_TO_EXPIRY = "days_to_expiry"
    SHORT_IN_MONEY = "short_in_money"
    VALUE_AGE_S = "value_age_s"
    MISSING_LEGS = "missing_legs"
    GAMMA_1PCT = "gamma_1pct"
    MAINTENANCE_MARGIN = "maintenance_margin"
    EXCESS_LIQUIDITY = "excess_liquidity"
    CUSHION = "cushion"
    REACHED = "reached"
    LOSS_OF_CREDIT = "loss_of_credit"


# The measures that are amounts of a currency.
SUMS_OF_MONEY = frozenset(Measure) - {
    Measure.DAYS_TO_EXPIRY, Measure.SHORT_IN_MONEY, Measure.VALUE_AGE_S, Measure.MISSING_LEGS,
    Measure.CUSHION, Measure.REACHED, Measure.LOSS_OF_CREDIT,
}  # fmt: skip

# The measures that only an account has: the broker's own numbers.
OF_ACCOUNTS = frozenset({Measure.MAINTENANCE_MARGIN, Measure.EXCESS_LIQUIDITY, Measure.CUSHION})

# The measures that only a strategy has: they are about its open campaign.
OF_STRATEGIES = frozenset({Measure.REACHED, Measure.LOSS_OF_CREDIT})

# The measures of profits: beyond their largest number is what somebody waited for.
OF_TARGETS = frozenset({Measure.UNREALIZED_PNL, Measure.DAILY_PNL, Measure.REACHED})


class Bound(StrEnum):
    """Whether a limit is the least or the greatest allowed number."""

    MIN = "min"
    MAX = "max"


class LimitState(StrEnum):
    """The outcome of the evaluation of a limit."""

    HOLDS = "HOLDS"
    BROKEN = "BROKEN"
    UNKNOWN = "UNKNOWN"


# Maximum length of a subject in the name of a check, which Dagster stores in 255 characters.
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The least or the greatest number that a measure may have.

    Attributes:
        strategy_id: The strategy; None for a limit of an account.
        account: The account; None for a limit of a strategy.
        currency: The currency of `value`; None for a measure that is no sum of money.
        kinds: The kinds of structures that have it; none: whatever the strategy is.
    """

    strategy_id: str | None = None
    account: str | None = None
    measure: Measure
    bound: Bound
    value: float
    currency: str | None = None
    kinds: frozenset[str] = frozenset()

    @property
    def subject(self) -> str:
        """The strategy or the account, as a person reads it."""
        if self.account is not None:
            return f"account {self.account}"
        return f"strategy {self.strategy_id}"

    @property
    def name(self) -> str:
        """The name of its check: letters, digits and underscores, and no other limit has it.

        >>> Limit(strategy_id="ic 1", measure=Measure.VEGA, bound=Bound.MAX, value=1.0).name
        'limit_strategy_ic_1_e9a13674_vega_max'
        """
        kind = "account" if self.account is not None else "strategy"
        given = self.account or self.strategy_id or ""
        text = re.sub(r"[^A-Za-z0-9_]", "_", given)[:LONGEST_NAME]
        if text != given:  # another subject may have the same letters
            text = f"{text}_{zlib.crc32(given.encode()):08x}"
        return f"limit_{kind}_{text}_{self.measure}_{self.bound}"

    def is_beyond(self, number: float) -> bool:
        """Return whether a number is beyond the limit; the limit itself is allowed."""
        if self.bound is Bound.MIN:
            return number < self.value
        return number > self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The number that a measure has at a moment.

    Attributes:
        number: None if it is not known, or if there is nothing to measure.
        unknown: Why the number is not known, or not all of it; "" if it is known.
        at_least: With `unknown`: the true number is not smaller than `number`.
    """

    number: float | None = None
    unknown: str = ""
    at_least: bool = False


def judge(limit: Limit, reading: Reading) -> LimitState:
    """Return whether a limit holds.

    >>> limit = Limit(strategy_id="a", measure=Measure.VEGA, bound=Bound.MAX, value=100.0)
    >>> judge(limit, Reading(number=100.5))
    <LimitState.BROKEN: 'BROKEN'>
    >>> judge(limit, Reading(number=3.0, unknown="a leg has no value"))
    <LimitState.UNKNOWN: 'UNKNOWN'>
    """
    is_beyond = reading.number is not None and limit.is_beyond(reading.number)
    stays_beyond = reading.at_least and limit.bound is Bound.MAX
    if is_beyond and (stays_beyond or not reading.unknown):
        return LimitState.BROKEN
    if reading.unknown:
        return LimitState.UNKNOWN
    return LimitState.HOLDS
