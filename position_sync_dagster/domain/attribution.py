"""To which strategy each movement of a holding belongs; pure.

What opens a holding belongs to the strategies that claim the contract then; what an assignment or
an exercise delivers, to the strategies that had the option, whether or not it is a leg of them.
What closes belongs to who has it. Where several have a part, a trade that closes all of it, or that
is one of those of a session that do, is divided by what they have; of any other it is not known
whose it was, and their profit is unknown.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time

from position_sync_dagster.domain.closes import SLACK
from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.holding import QUANTITY_ROUNDING, Key
from position_sync_dagster.domain.instrument import OPTION_TYPES, leg_name
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.domain.movements import (
    DELIVERIES,
    INCOME,
    OWNERS_CASH,
    Movement,
    MovementKind,
    Section,
)

# When in its day, in New York, a trade counts as made, and a booking, of which only the day is
# known.
TRADED_AT = time(12)
BOOKED_AT = time(23, 59)

# Cash that an owner of a holding gets or pays for it.
_PAID = frozenset({MovementKind.DIVIDEND, MovementKind.WITHHOLDING, MovementKind.INTEREST})
_OF_NO_HOLDING = (INCOME | OWNERS_CASH | {MovementKind.CONVERSION}) - _PAID

# How an option ends that is not traded away.
_ENDS = DELIVERIES | {MovementKind.EXPIRATION, MovementKind.CASH_SETTLEMENT}

# What each owner has, or how much of something belongs to each.
_Shares = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedPart:
    """The part of a movement that belongs to one strategy.

    Attributes:
        owner: The strategy; UNATTRIBUTED: none has it.
        movement: The movement, with the sign of its quantity.
        fraction: Which part of its money belongs to the owner.
        quantity: By how much it changed what the owner has.
        opens: Whether it opened something.
        unknown: Why it is not known what it brought; None: its cash and its fee say it.
        is_prior: Whether it is no movement, but what was held before the first one.
    """

    owner: str
    movement: Movement
    fraction: float
    quantity: float
    opens: bool
    unknown: str | None = None
    is_prior: bool = False

    @property
    def key(self) -> Key:
        """Return account and conid."""
        return self.movement.key

    @property
    def at(self) -> datetime:
        """Return when it happened, as far as that is known."""
        return moment_of(self.movement)

    @property
    def is_option(self) -> bool:
        """Return whether it is of an option."""
        return self.movement.sec_type in OPTION_TYPES

    @property
    def is_trade(self) -> bool:
        """Return whether it was bought or sold."""
        return self.movement.kind is MovementKind.TRADE and not self.is_prior

    @property
    def cash(self) -> float | None:
        """Return what it brought, without fees; None: not known."""
        movement = self.movement
        cash = movement.cash
        if movement.kind is MovementKind.TRANSFER:
            cash = None if movement.value is None else -movement.value
        return None if cash is None else cash * self.fraction

    @property
    def fee(self) -> float | None:
        """Return its fee; positive was paid; None: not known."""
        fee = self.movement.fee
        return None if fee is None else 0.0 - fee * self.fraction


def moment_of(movement: Movement) -> datetime:
    """Return when a movement happened, as far as that is known."""
    if movement.at is not None:
        return movement.at
    usual = TRADED_AT if movement.kind is MovementKind.TRADE else BOOKED_AT
    return datetime.combine(movement.day, usual, NEW_YORK).astimezone(UTC)


def name_of(movement: Movement) -> str:
    """Return the contract of a movement as a trader writes it."""
    symbol = movement.symbol or f"{movement.conid}"
    return leg_name(symbol, movement.right, movement.strike, movement.expiry)


def attributed(
    movements: Iterable[Movement],
    legs: Iterable[ActiveContract],
    held_before: Mapping[Key, float],
) -> list[OwnedPart]:
    """Return the parts of all movements of holdings, each with its owner, in order of time.

    Args:
        movements: Each once; all of each holding.
        legs: The legs of strategies, also those that were removed.
        held_before: What was held before the first movement, where that is known not to be 0.
    """
    by_key: defaultdict[Key, list[Movement]] = defaultdict(list)
    for movement in movements:
        if movement.conid is not None and movement.kind not in _OF_NO_HOLDING:
            by_key[movement.key].append(movement)

    legs_of: defaultdict[int, list[ActiveContract]] = defaultdict(list)
    for leg in legs:
        legs_of[leg.conid].append(leg)

    deliveries = _Deliveries()
    parts: list[OwnedPart] = []
    # Options come first: what they deliver belongs to their owners.
    for key in sorted(by_key, key=lambda key: (not _is_of_options(by_key[key]), key)):
        account, conid = key
        of_account = [leg for leg in legs_of[conid] if leg.account in (None, account)]
        holding = _Holding(by_key[key], of_account, held_before.get(key, 0.0), deliveries)
        parts += holding.parts()

    parts += deliveries.lost()
    return sorted(parts, key=lambda part: (part.at, part.movement.movement_id))


def _is_of_options(movements: Sequence[Movement]) -> bool:
    return any(movement.sec_type in OPTION_TYPES for movement in movements)


@dataclass(slots=True, eq=False)
class _Deliveries:
    """The ends of options by delivery, which say whose is what was delivered.

    Attributes:
        ends: By account, day and the contract that was delivered.
        arrived: For which of them something arrived.
    """

    ends: defaultdict[tuple[str, date, int | None], list[OwnedPart]] = field(
        default_factory=lambda: defaultdict(list)
    )
    arrived: set[tuple[str, date, int | None]] = field(default_factory=set)

    def add(self, end: OwnedPart) -> None:
        """Remember the end of an option."""
        movement = end.movement
        delivered = movement.counter_conid or movement.underlying_conid
        self.ends[movement.account, movement.day, delivered].append(end)

    def owners_of(self, movement: Movement) -> _Shares | None:
        """Return how a delivery is divided among the owners of the options; None: not known."""
        place = (movement.account, movement.day, movement.conid)
        ends = self.ends.get(place)
        if ends is None:
            return None

        self.arrived.add(place)
        at_strike = [end for end in ends if end.movement.strike == movement.price]
        of_option = [end for end in ends if end.movement.conid == movement.counter_conid]
        sizes: _Shares = defaultdict(float)
        for end in of_option or at_strike or ends:
            sizes[end.owner] += abs(end.quantity)

        if len(sizes) > 1 and not (of_option or at_strike):
            return None
        total = sum(sizes.values())
        return {owner: size / total for owner, size in sizes.items()}

    def lost(self) -> list[OwnedPart]:
        """Return, for each end of which nothing arrived, that what it left is not known."""
        lost: list[OwnedPart] = []
        for place, ends in self.ends.items():
            if place in self.arrived:
                continue
            for end in ends:
                text = f"what {name_of(end.movement)} delivered is not known"
                lost.append(replace(end, quantity=0.0, fraction=0.0, unknown=text))
        return lost


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """The claim of a strategy on a contract, while it is a leg of it.

    Attributes:
        quantity: How much of it; None: all.
        since: The first day; None: `begin` says it.
        begin: The time from which it counts.
        end: Until when; None: it goes on.
        added_at: When the leg was added; of two claims the newer one counts.
    """

    strategy_id: str
    quantity: float | None
    since: date | None
    begin: datetime
    end: datetime | None
    added_at: datetime

    def covers(self, movement: Movement) -> bool:
        """Return whether the contract was a leg at the time of a movement."""
        at = moment_of(movement)
        if self.end is not None and at > self.end:
            return False
        if self.since is not None and movement.day >= self.since:
            return True
        return at >= self.begin


class _Holding:
    """A holding of an account: its movements in order, and what each owner has of it."""

    def __init__(
        self,
        movements: Iterable[Movement],
        legs: Iterable[ActiveContract],
        held_before: float,
        deliveries: _Deliveries,
    ) -> None:
        self._deliveries = deliveries
        self._signed = _with_signs(sorted(movements, key=_order_of), held_before)
        self._prior = held_before or _prior_of(self._signed)
        self._claims = _claims_of(legs, self._stays())
        self._at_end_of = self._quantities_by_session()
        self._has: _Shares = {}
        self._last_owners: _Shares = {}
        self._parts: list[OwnedPart] = []

    def parts(self) -> list[OwnedPart]:
        """Return the parts of all movements."""
        if self._prior:
            self._open_prior(self._signed[0])

        for movement in self._signed:
            by = movement.quantity
            if by is None and movement.kind not in _PAID:
                self._lose_track(movement)
            elif not by or movement.kind in _PAID:
                self._pay(movement)
            elif movement.kind is MovementKind.CORPORATE_ACTION:
                self._reorganize(movement, by)
            else:
                self._move(movement, by)
        return self._parts

    @property
    def _total(self) -> float:
        return sum(self._has.values())

    def _stays(self) -> list[tuple[datetime, datetime | None]]:
        """Return from when until when something was held, each time; None: it still is."""
        stays: list[tuple[datetime, datetime | None]] = []
        total = self._prior
        begin = moment_of(self._signed[0]) if self._prior else None
        for movement in self._signed:
            before = total
            total += movement.quantity or 0.0
            if abs(before) < QUANTITY_ROUNDING <= abs(total):
                begin = moment_of(movement)
            if abs(total) < QUANTITY_ROUNDING <= abs(before) and begin is not None:
                stays.append((begin, moment_of(movement)))
                begin = None
        return stays if begin is None else [*stays, (begin, None)]

    def _quantities_by_session(self) -> dict[date, float]:
        total = self._prior
        quantities: dict[date, float] = {}
        for movement in self._signed:
            total += movement.quantity or 0.0
            quantities[movement.session_date] = total
        return quantities

    def _open_prior(self, first: Movement) -> None:
        """Divide what was held before the first movement to those that claim it."""
        text = f"what {name_of(first)} cost is not known: it was held before its first movement"
        prior = replace(first, quantity=self._prior, cash=None, fee=0.0, order_id=None)
        openers = self._openers(prior, self._prior)
        self._add_parts(prior, openers, opens=True, unknown=text, is_prior=True)

    def _move(self, movement: Movement, by: float) -> None:
        """Divide a movement: first it closes what is held on the other side, then it opens."""
        total = self._total
        delivered_to = self._deliveries.owners_of(movement) if _is_delivery(movement) else None
        closed = 0.0
        if total * by < 0:
            closed = -total if abs(by) >= abs(total) - QUANTITY_ROUNDING else by
            self._close(movement, closed, delivered_to)

        opened = by - closed
        if abs(opened) >= QUANTITY_ROUNDING:
            self._open(movement, opened, delivered_to)

    def _close(self, movement: Movement, by: float, delivered_to: _Shares | None) -> None:
        self._last_owners = dict(self._has)
        closers = self._closers(movement, by, delivered_to)
        if closers is None:
            text = f"it is not known whose {name_of(movement)} closed on {movement.day}"
            self._add_parts(movement, self._divided(by), opens=False, unknown=text)
        else:
            self._add_parts(movement, closers, opens=False)

    def _divided(self, by: float) -> _Shares:
        """Return a quantity, divided by what the owners have."""
        total = self._total
        return {owner: by * held / total for owner, held in self._has.items()}

    def _closers(
        self, movement: Movement, by: float, delivered_to: _Shares | None
    ) -> _Shares | None:
        """Return whose a close was; None: not known."""
        if len(self._has) == 1:
            return {next(iter(self._has)): by}

        is_all = abs(by + self._total) < QUANTITY_ROUNDING
        ends_flat = abs(self._at_end_of[movement.session_date]) < QUANTITY_ROUNDING
        if is_all or ends_flat:
            return self._divided(by)

        if delivered_to is None:
            return None
        shares = _scaled(delivered_to, by)
        for owner, share in shares.items():
            held = self._has.get(owner, 0.0)
            if held * share >= 0 or abs(held) < abs(share) - QUANTITY_ROUNDING:
                return None
        return shares

    def _open(self, movement: Movement, by: float, delivered_to: _Shares | None) -> None:
        if delivered_to is not None:
            self._add_parts(movement, _scaled(delivered_to, by), opens=True)
            return

        text = None
        if _is_delivery(movement):
            text = f"it is not known which option delivered {name_of(movement)}"
        self._add_parts(movement, self._openers(movement, by), opens=True, unknown=text)

    def _openers(self, movement: Movement, by: float) -> _Shares:
        """Return whose an opening is: of those that claim a quantity, as far as they lack it."""
        claims = _counting(claim for claim in self._claims if claim.covers(movement))
        lacking: _Shares = {}
        whole = UNATTRIBUTED
        for claim in claims:
            if claim.quantity is None:
                whole = claim.strategy_id
                continue
            missing = claim.quantity - self._has.get(claim.strategy_id, 0.0)
            if missing * by > 0:
                lacking[claim.strategy_id] = missing

        total = sum(lacking.values())
        if abs(total) > abs(by):
            for owner, missing in lacking.items():
                lacking[owner] = missing * by / total
        unclaimed = by - sum(lacking.values())
        if abs(unclaimed) >= QUANTITY_ROUNDING or not lacking:
            lacking[whole] = unclaimed
        return lacking

    def _reorganize(self, movement: Movement, by: float) -> None:
        """Divide a split by what the owners have; anything else makes the money unknown."""
        total = self._total
        if total * (total + by) > 0:
            self._add_parts(movement, self._divided(by), opens=False)
            return

        text = f"what {name_of(movement)} became by a corporate action is not known"
        if total:
            self._add_parts(movement, self._divided(-total), opens=False, unknown=text)
        if abs(total + by) >= QUANTITY_ROUNDING:
            openers = self._openers(movement, total + by)
            self._add_parts(movement, openers, opens=True, unknown=text)

    def _pay(self, movement: Movement) -> None:
        """Divide cash of a holding among its owners, or the last ones."""
        owners = self._has or self._last_owners or {UNATTRIBUTED: 1.0}
        total = sum(owners.values())
        for owner, held in owners.items():
            unknown = _why_no_money(movement)
            self._add(_without_quantity(movement, owner, held / total, unknown))

    def _lose_track(self, movement: Movement) -> None:
        """Make the money of all owners unknown: it is not known what a movement changed."""
        text = f"the quantity of {name_of(movement)} of {movement.day} is not known"
        owners = self._has or {claim.strategy_id: 0.0 for claim in self._claims}
        for owner in owners or {UNATTRIBUTED: 0.0}:
            self._add(_without_quantity(movement, owner, 0.0, text))

    def _add_parts(
        self,
        movement: Movement,
        shares: _Shares,
        *,
        opens: bool,
        unknown: str | None = None,
        is_prior: bool = False,
    ) -> None:
        whole = movement.quantity or 0.0
        for owner, quantity in shares.items():
            part = OwnedPart(
                owner=owner,
                movement=movement,
                fraction=quantity / whole if whole else 1.0 / len(shares),
                quantity=quantity,
                opens=opens,
                unknown=unknown or _why_no_money(movement),
                is_prior=is_prior,
            )
            self._add(part)
            if part.is_option and movement.kind in DELIVERIES and not is_prior:
                self._deliveries.add(part)

    def _add(self, part: OwnedPart) -> None:
        self._parts.append(part)
        self._has[part.owner] = self._has.get(part.owner, 0.0) + part.quantity
        if abs(self._has[part.owner]) < QUANTITY_ROUNDING:
            del self._has[part.owner]


def _without_quantity(
    movement: Movement, owner: str, fraction: float, unknown: str | None
) -> OwnedPart:
    """Return the part of an owner in the money of a movement that changed no quantity."""
    return OwnedPart(
        owner=owner, movement=movement, fraction=fraction, quantity=0.0, opens=False,
        unknown=unknown,
    )  # fmt: skip


def _scaled(shares: _Shares, by: float) -> _Shares:
    """Return how much of a quantity belongs to each, given the share of each."""
    return {owner: by * share for owner, share in shares.items()}


def _order_of(movement: Movement) -> tuple[datetime, bool, str]:
    """Return the sort key; of trades without times, those that opened come first."""
    return moment_of(movement), movement.open_close == "C", movement.movement_id


def _is_delivery(movement: Movement) -> bool:
    return movement.kind in DELIVERIES and movement.sec_type not in OPTION_TYPES


def _with_signs(movements: Sequence[Movement], held_before: float) -> list[Movement]:
    """Return movements where the end of an option reduces what was held.

    The option events of statements have either sign.
    """
    total = held_before
    signed: list[Movement] = []
    for movement in movements:
        by = movement.quantity
        if by and movement.section is Section.OPTION_EVENTS and movement.sec_type in OPTION_TYPES:
            by = -math.copysign(by, total or _usual_side(movement))
        signed.append(movement if by == movement.quantity else replace(movement, quantity=by))
        total += by or 0.0
    return signed


def _usual_side(movement: Movement) -> float:
    """Return the sign of the holding that an event ends, where nothing says what was held."""
    usual = {MovementKind.ASSIGNMENT: -1.0, MovementKind.EXERCISE: 1.0}
    return usual.get(movement.kind, -(movement.quantity or 0.0))


def _prior_of(movements: Sequence[Movement]) -> float:
    """Return what was held before the first movement, as far as the movements say it.

    A trade that the broker calls a close, and the end of an option, closed what was held.
    """
    total = 0.0
    missing_long = 0.0
    missing_short = 0.0
    for movement in movements:
        by = movement.quantity or 0.0
        total += by
        # The cash of a settlement has a row without quantity, before or after that of its end.
        if not by or not _closes(movement):
            continue

        if by > 0:
            missing_short = max(missing_short, total)
        else:
            missing_long = max(missing_long, -total)

    if missing_long >= QUANTITY_ROUNDING and missing_short >= QUANTITY_ROUNDING:
        return 0.0
    if missing_long >= QUANTITY_ROUNDING:
        return missing_long
    return -missing_short if missing_short >= QUANTITY_ROUNDING else 0.0


def _closes(movement: Movement) -> bool:
    if movement.kind is MovementKind.TRADE:
        return movement.open_close == "C"
    return movement.sec_type in OPTION_TYPES and movement.kind in _ENDS


def _claims_of(
    legs: Iterable[ActiveContract], stays: Sequence[tuple[datetime, datetime | None]]
) -> list[_Claim]:
    """Return the claims of legs; one on what is held already has it from when it was opened."""
    claims: list[_Claim] = []
    for leg in legs:
        begin = leg.added_at - SLACK
        for opened, closed in stays:
            is_during = opened <= leg.added_at + SLACK and (closed is None or closed >= begin)
            if is_during and leg.since is None:
                begin = min(begin, opened)

        claim = _Claim(
            strategy_id=str(leg.strategy_id),
            quantity=leg.quantity,
            since=leg.since,
            begin=begin,
            end=None if leg.removed_at is None else leg.removed_at + SLACK,
            added_at=leg.added_at,
        )
        claims.append(claim)
    return claims


def _counting(claims: Iterable[_Claim]) -> list[_Claim]:
    """Return of each strategy the newest claim, and one claim on the whole at most."""
    newest: dict[str, _Claim] = {}
    for claim in sorted(claims, key=lambda claim: claim.added_at):
        newest[claim.strategy_id] = claim

    whole = [claim for claim in newest.values() if claim.quantity is None]
    taken_over = whole[:-1]
    return [claim for claim in newest.values() if claim not in taken_over]


def _why_no_money(movement: Movement) -> str | None:
    """Return why it is not known what a movement brought; None: it is known."""
    name = f"{name_of(movement)} of {movement.day}"
    if movement.kind is MovementKind.TRANSFER and movement.value is None:
        return f"what was transferred with {name} had no stated value"
    if movement.kind is not MovementKind.TRANSFER and movement.cash is None:
        if movement.multiplier is None:
            return f"the multiplier of {name} is not known"
        return f"the price of {name} is not known"
    if movement.fee is None:
        return f"the fee of {name} is not known"
    if movement.fee and movement.fee_currency != movement.currency:
        return f"the fee of {name} was charged in {movement.fee_currency or 'an unknown currency'}"
    return None
