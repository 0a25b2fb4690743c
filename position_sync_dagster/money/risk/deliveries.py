"""What expiring legs leave at the present price, and which short options may be assigned early.

An account delivers from all that it holds: its shares or futures, what its other legs bring at the
same moment, and the calls that it holds longer. A leg without a price is listed with the reason,
and its numbers are unknown.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from operator import attrgetter, itemgetter

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.money.risk import model
from position_sync_dagster.money.risk.priced_legs import Assumptions, NewRow, PricedLeg, PricedLegs
from position_sync_dagster.money.risk.terms import ExerciseTerms, NotPriced
from position_sync_dagster.money.trading_days import is_settled_at_the_open, settles_in_cash
from position_sync_dagster.sync.exchange_days import day_of

# An option is pinned whose strike is within this share of the price.
PINNED = 0.005

# What is smaller than this is the rounding of a sum of quantities.
NO_UNITS = 1e-9

# The time before an ex-date in which a call is exercised for the dividend.
BEFORE_EX_DATE = timedelta(days=7)

# A put, or an option on a future, is near parity with at most this time value.
NEAR_PARITY = 0.05

FUTURE_DELIVERY = "what the future delivers is not known"


@dataclass(slots=True, kw_only=True)
class ExpiringLeg:
    """What a leg leaves that expires.

    Attributes:
        units: Shares or futures that come; below 0 they go. 0 of what is settled in cash; None: not
            known.
        cash: Money that comes; below 0 it is needed. Of an option on a future its mark: the future
            comes at the strike. None: not known.
        missing: Shares or futures that the account does not have; None: not known.
        reason: Why numbers are not known.
    """

    leg: PricedLeg
    expires_at: datetime
    is_cash_settled: bool | None
    is_in_the_morning: bool
    units: float | None = None
    cash: float | None = None
    is_pinned: bool | None = None
    missing: float | None = None
    reason: str | None = None

    @property
    def is_uncovered(self) -> bool | None:
        """Whether the account lacks what goes; None: not known."""
        if self.missing is None:
            return None
        return self.missing > NO_UNITS

    @property
    def row(self) -> NewRow:
        """The delivery for a program."""
        named = self.leg.named | {"position": self.leg.quantity}
        return named | {name: getattr(self, name) for name in _OF_DELIVERY}


# What a program gets of a delivery.
_OF_DELIVERY = (
    "expires_at", "units", "cash", "missing", "is_pinned", "is_cash_settled", "is_in_the_morning",
    "is_uncovered", "reason",
)  # fmt: skip


def expiries(legs: PricedLegs, *, until: date, strategy: str | None = None) -> list[NewRow]:
    """Return what each leg leaves that expires until a day, if it ended at the present price.

    Args:
        legs: All parts of the holdings: an account covers a leg with any of them.
        until: The last day, at the exchange of the calendar.
        strategy: The strategy whose legs are returned; None: all.

    Returns:
        Rows as `ExpiringLeg.row` has them, by their moment in New York.
    """
    deliveries = list(_deliveries(legs))
    _count_all_missing(deliveries, legs)
    due = []
    for delivery in deliveries:
        is_due = day_of(legs.given.calendar, delivery.expires_at) <= until
        if is_due and strategy in (None, delivery.leg.row["strategy_id"]):
            due.append(delivery.row)
    return sorted(due, key=itemgetter("expires_at", "strategy_id", "conid"))


def expiry_report(
    legs: PricedLegs, *, days: int, strategy: str | None = None
) -> dict[str, list[NewRow]]:
    """Return what expires within some days, and what may be assigned early.

    Args:
        legs: All parts of the holdings.
        days: Calendar days from today at the exchange of the calendar.
        strategy: The strategy whose legs are returned; None: all.

    Returns:
        Lists of rows by their names: `expiries`, `early_assignments`, `not_judged` (short options
        of which nothing can be said) and `undated` (options without a known expiry).
    """
    until = day_of(legs.given.calendar, legs.given.now) + timedelta(days=days)
    of_strategy = legs.of_strategy(strategy)
    early = early_assignments(of_strategy)
    return {
        "expiries": expiries(legs, until=until, strategy=strategy),
        "early_assignments": early.likely,
        "not_judged": early.left_out,
        "undated": undated_options(of_strategy),
    }


def uncovered_calls(legs: PricedLegs) -> list[NewRow]:
    """Return the short calls that their account could not deliver if all calls were exercised.

    Returns:
        Rows with the leg, `expires_at` and `missing`.
    """
    deliveries = []
    for delivery in _deliveries(legs):
        terms = delivery.leg.delivered
        if terms and not delivery.is_cash_settled:
            delivery.units = _units_delivered(delivery.leg, terms) if terms.is_call else 0.0
            deliveries.append(delivery)
    _count_all_missing(deliveries, legs)
    return [
        delivery.leg.named | {"expires_at": delivery.expires_at, "missing": delivery.missing}
        for delivery in deliveries
        if delivery.is_uncovered
    ]


# Returns which legs cover each other: those of an account on one underlying.
_UNDERLYING_OF = itemgetter("account", "under", "currency")


def _count_all_missing(deliveries: Sequence[ExpiringLeg], legs: PricedLegs) -> None:
    """Set how many units are missing for each delivery, account by account."""
    held_by = grouped(lambda leg: _UNDERLYING_OF(leg.row), legs)
    going_by = grouped(lambda delivery: _UNDERLYING_OF(delivery.leg.row), deliveries)
    for key, going in going_by.items():
        _count_missing(going, held_by[key])


def undated_options(legs: PricedLegs) -> list[NewRow]:
    """Return the options whose expiry is not known, so that no list by days has them."""
    undated = []
    for leg in legs:
        is_option = leg.row["right"] is not None
        if is_option and leg.ends_at is None:
            undated.append(leg.named | {"reason": NotPriced.NO_TERMS})
    return undated


def _deliveries(legs: PricedLegs) -> Iterable[ExpiringLeg]:
    """Yield what each leg leaves that expires at all."""
    for leg in legs:
        expires_at = leg.ends_at
        if expires_at is not None:
            yield _delivery(leg, expires_at)


def _delivery(leg: PricedLeg, expires_at: datetime) -> ExpiringLeg:
    """Return what a leg leaves at the present price of its underlying."""
    in_cash = settles_in_cash(leg.details)
    delivery = ExpiringLeg(
        leg=leg,
        expires_at=expires_at,
        is_cash_settled=in_cash,
        is_in_the_morning=leg.details is not None and is_settled_at_the_open(leg.details),
    )

    terms = leg.terms
    spot = leg.row["spot"]
    if terms is None:
        # A future is marked each day: what it has earned is in the account already.
        delivery.cash = 0.0
        if in_cash:
            delivery.units = 0.0
        else:
            delivery.is_cash_settled = None
            delivery.reason = FUTURE_DELIVERY

    elif isinstance(terms, NotPriced):
        delivery.reason = terms.value
    elif not spot:
        delivery.reason = NotPriced.NO_PRICE.value
    else:
        intrinsic = terms.intrinsic(spot)
        delivery.is_pinned = abs(spot - terms.strike) <= PINNED * spot
        delivery.units = 0.0
        if intrinsic > 0 and not in_cash:
            delivery.units = terms.side * _units_delivered(leg, terms)

        delivery.cash = -delivery.units * terms.strike
        if in_cash or terms.exercise.is_on_future:
            delivery.cash = leg.size * intrinsic
    return delivery


def _units_delivered(leg: PricedLeg, terms: ExerciseTerms) -> float:
    """Return the shares that a leg delivers as a call, or the futures: one for each option."""
    if terms.exercise.is_on_future:
        return leg.quantity
    return leg.size


def _count_missing(deliveries: Sequence[ExpiringLeg], held: Sequence[PricedLeg]) -> None:
    """Set how many units are missing for each delivery of one account and underlying.

    Moments come in their order. What goes is covered by what is held, by what comes at the same
    moment, and by the calls that expire later.
    """
    known = [delivery for delivery in deliveries if delivery.units is not None]
    by_moment = grouped(attrgetter("expires_at"), known)
    units = sum(leg.quantity for leg in held if leg.terms is None)  # shares and futures
    for moment in sorted(by_moment):
        for delivery in by_moment[moment]:
            units += max(0.0, delivery.units or 0.0)

        free = units + sum(_units_callable(leg, moment) for leg in held)
        for delivery in by_moment[moment]:
            going = max(0.0, -(delivery.units or 0.0))
            covered = min(going, max(0.0, free))
            delivery.missing = going - covered
            free -= covered
            units -= going


def _units_callable(leg: PricedLeg, after: datetime) -> float:
    """Return the shares or futures that a long call brings which expires after a moment."""
    terms = leg.delivered
    if terms is None or not terms.is_call or terms.expires_at <= after:
        return 0.0
    return max(0.0, _units_delivered(leg, terms))


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyAssignments:
    """Which short options may be assigned early.

    Attributes:
        likely: Those whose holder gains nothing more by selling: with `leg`, `extrinsic` (what one
            unit is worth above its exercise; below 0 it is worth less) and `ex_date` (when the
            dividend goes, of a call).
        left_out: Those that cannot be judged, with `reason`, and with `in_the_money`: None where
            the price of the underlying is not known.
    """

    likely: list[NewRow]
    left_out: list[NewRow]

    @property
    def doubtful(self) -> list[NewRow]:
        """Those left out that are in the money, or may be."""
        return [row for row in self.left_out if row["in_the_money"] is not False]


def early_assignments(legs: PricedLegs) -> EarlyAssignments:
    """Return the short options that their holders may exercise before the expiry.

    A holder exercises where selling gains nothing more: an option below its intrinsic value, a
    put whose time value is at most 0.05, and a call in the week before an ex-date whose dividend
    exceeds its time value. It needs neither a volatility nor a rate.
    """
    likely: list[NewRow] = []
    left_out: list[NewRow] = []
    for leg in legs:
        terms = leg.delivered
        if leg.row["right"] is None or leg.quantity >= 0:
            continue
        if terms and (terms.expires_at <= legs.given.now or not terms.exercise.is_early):
            continue

        names = leg.named | {"position": leg.quantity}
        reason = _not_judged(leg)
        if reason is not None:
            left_out.append(names | {"in_the_money": _in_the_money(leg), "reason": reason})
        elif (judged := _judged(leg, legs.given)) is not None:
            likely.append(names | judged)
    return EarlyAssignments(likely=likely, left_out=left_out)


def _not_judged(leg: PricedLeg) -> str | None:
    """Return why nothing can be said of a short option; None: something can."""
    if isinstance(leg.terms, NotPriced):
        return leg.terms.value
    if not leg.row["spot"]:
        return NotPriced.NO_PRICE.value
    if leg.row["market_value"] is None:
        return "it has no value"

    return None


def _in_the_money(leg: PricedLeg) -> bool | None:
    """Return whether an option is in the money; None: it is not known."""
    spot = leg.row["spot"]
    if leg.delivered is None or not spot:
        return None
    return leg.delivered.above_strike(spot) > 0


def _judged(leg: PricedLeg, given: Assumptions) -> NewRow | None:
    """Return why a holder would exercise; None: he would not."""
    terms = leg.delivered
    if terms is None or not _in_the_money(leg):
        return None

    unit_value = float(leg.row["market_value"] / leg.size)
    spot = leg.row["spot"]
    extrinsic = unit_value - terms.above_strike(spot)
    ex_date = None
    gain = NEAR_PARITY
    if terms.is_call and not terms.exercise.is_on_future:
        soon = min(terms.expires_at, given.now + BEFORE_EX_DATE)

        coming = []
        for dividend in given.dividends.get(leg.row["symbol"]) or ():
            amount = dividend.amount_at(spot)
            if given.now < dividend.ex_date <= soon:
                coming.append((dividend.ex_date, amount))
        ex_date, gain = min(coming, default=(None, -model.MODEL_ROUNDING))
    if extrinsic > gain:
        return None
    return {"extrinsic": extrinsic, "ex_date": ex_date}
