"""The bookkeeper, who knows who had what: queues by owner and by account, and all edges.

First in, first out, of what an owner has for strategies and of what an account has for lots. A
corporate action and a transfer between own accounts carry cost and day, in proportion; a delivery
does not. What is live has an average cost.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from fractions import Fraction

from tests.support.ledger_world.values import (
    Booking,
    Edge,
    Money,
    Parcel,
    PostingName,
    PostingSize,
    part,
    total,
)

# An owner, or an empty text for all of an account; the account, and the contract.
Place = tuple[str, str, int]
Shares = Mapping[str, Fraction]

OF_ACCOUNT = ""

# What is on the way: of each owner, and of the account, its parcels, and its part of a pool.
Sent = list[tuple[str, list[Parcel], Parcel | None]]


@dataclass
class Posted:
    """A posting, as the bookkeeper wrote it: for campaigns and days."""

    booking: Booking
    owner: str
    effect: str
    quantity: Fraction
    cash: Money
    fee: Money
    is_prior: bool = False

    @property
    def money(self) -> Money:
        """What it brought after the fee."""
        return total(self.cash, part(self.fee, Fraction(-1)))


@dataclass
class Bookkeeper:
    """Books what happens, each time with its owners.

    Attributes:
        queues: What is held, the first one first.
        pools: The same with one average cost.
        edges: By owner, and by account where the name of the owner is empty.
        realised: By owner, at average cost.
        adjusted: What was paid later for openings that are held, by owner and name.
        lost: Where it is not known how much is held, nor what closes take.
        posted: The postings in order of time; and in the graph, by name.
    """

    queues: dict[Place, deque[Parcel]] = field(default_factory=lambda: defaultdict(deque))
    pools: dict[Place, Parcel] = field(default_factory=dict)
    edges: list[tuple[str, Edge]] = field(default_factory=list)
    realised: dict[str, Money] = field(default_factory=lambda: defaultdict(Fraction))
    adjusted: dict[tuple[str, str], Fraction] = field(default_factory=dict)
    lost: set[Place] = field(default_factory=set)
    posted: list[Posted] = field(default_factory=list)
    postings: dict[PostingName, PostingSize] = field(default_factory=dict)

    # -- what is held

    def held(self, owner: str, account: str, conid: int) -> Fraction:
        """Return how much an owner, or an account, has."""
        queue = self.queues.get((owner, account, conid), ())
        return sum((parcel.quantity for parcel in queue), Fraction(0))

    def owners(self, account: str, conid: int) -> list[str]:
        """Return who has some of a contract."""
        return sorted(
            owner
            for owner, *place in self.queues
            if place == [account, conid] and owner and self.held(owner, account, conid)
        )

    def divided(self, quantity: Fraction, account: str, conid: int) -> dict[str, Fraction]:
        """Return a quantity divided by what owners have."""
        whole = self.held(OF_ACCOUNT, account, conid)
        return {
            owner: quantity * self.held(owner, account, conid) / whole
            for owner in self.owners(account, conid)
        }

    # -- what happens

    def trade(
        self,
        booking: Booking,
        shares: Shares,
        *,
        cash: Money = Fraction(0),
        name: str = "",
        is_unclear: bool = False,
        paid_beside: Fraction = Fraction(0),
    ) -> None:
        """Close what is on the other side, first in first out, and open with what is left.

        Args:
            shares: Whose it is.
            cash: What the whole brought, before the fee.
            name: How the graph calls it; empty: by its number.
            is_unclear: Whether the shares of the owners are a guess.
            paid_beside: What another row brings for it.
        """
        fee = Fraction(booking.fee) if booking.is_fee_stated else None
        whole = sum(shares.values(), Fraction(0))
        for owner, quantity in shares.items():
            fraction = quantity / whole
            own_cash = None if is_unclear or fee is None else part(cash, fraction)
            own_fee = part(fee, fraction)
            money = total(own_cash, paid_beside * fraction, part(own_fee, Fraction(-1)))
            parcel = self._parcel(booking, name, quantity, money, own_fee)
            place = self._place(owner, booking)

            self._post_sides(booking, owner, quantity, own_cash, own_fee, name)
            self._match(place, parcel)
            if is_unclear:
                self._lose(place)

        money = total(cash, paid_beside, part(fee, Fraction(-1)))
        of_account = self._parcel(booking, name, whole, money, fee)
        self._match(self._place(OF_ACCOUNT, booking), of_account)

    def lose(self, booking: Booking) -> None:
        """Write a row whose quantity is not known: all that its owners close later is not."""
        account, conid = self._key(booking)
        for owner in [*self.owners(account, conid), OF_ACCOUNT]:
            place = (owner, account, conid)
            self.lost.add(place)
            self._lose(place)
            if owner:
                self._post(booking, owner, "LOSES", Fraction(0), None, Fraction(0))
            self._pay(owner, booking, None, "PAYS")

    def _lose(self, place: Place) -> None:
        """Make unknown what is held."""
        self.queues[place] = deque(held.lost() for held in self.queues[place])
        if place in self.pools:
            self.pools[place] = self.pools[place].lost()

    def _post_sides(
        self,
        booking: Booking,
        owner: str,
        quantity: Fraction,
        cash: Money,
        fee: Money,
        name: str,
    ) -> None:
        """Write what a trade closed, and what it opened, of an owner."""
        place = self._place(owner, booking)
        held = self.held(*place)
        closed = Fraction(0)
        if held * quantity < 0:
            closed = quantity if abs(quantity) <= abs(held) else -held
        sides = {"CLOSES": closed, "OPENS": quantity - closed}
        for effect, size in sides.items():
            if size:
                fraction = size / quantity
                is_lost = effect == "CLOSES" and place in self.lost
                own_cash = None if is_lost else part(cash, fraction)
                self._post(booking, owner, effect, size, own_cash, part(fee, fraction), name)

    def pay(self, booking: Booking, shares: Shares, effect: str) -> None:
        """Book money without a quantity: PAYS, or EARNS of what is held."""
        whole = sum(shares.values(), Fraction(0))
        for owner, quantity in shares.items():
            money = booking.cash * quantity / whole
            self._post(booking, owner, effect, Fraction(0), money, Fraction(0))
            self._pay(owner, booking, money, effect)
        self._pay(OF_ACCOUNT, booking, Fraction(booking.cash), effect)

    def earn(self, booking: Booking, owner: str) -> None:
        """Write income of an account, which is of no contract, and in no graph."""
        cash = Fraction(booking.cash)
        self.posted.append(Posted(booking, owner, "EARNS", Fraction(0), cash, Fraction(0)))

    def pay_for_close(self, booking: Booking, owner: str) -> None:
        """Write the cash of a settlement, which the close that it pays for has already."""
        self._post(booking, owner, "PAYS", Fraction(0), Fraction(booking.cash), Fraction(0))

    def adjust(self, booking: Booking, owner: str, opening: Booking) -> None:
        """Write money that is cost of an opening, all of which is still held."""
        self.pay_for_close(booking, owner)
        self.adjusted[owner, opening.name] = Fraction(booking.cash)
        for who in (owner, OF_ACCOUNT):
            place = self._place(who, booking)
            self.queues[place] = deque(
                replace(held, money=total(held.money, Fraction(booking.cash)))
                if held.name == opening.name
                else held
                for held in self.queues[place]
            )
        place = self._place(owner, booking)
        pool = self.pools[place]
        self.pools[place] = replace(pool, money=total(pool.money, Fraction(booking.cash)))

    def _pay(self, owner: str, booking: Booking, money: Money, effect: str) -> None:
        paid = self._parcel(booking, "", Fraction(0), money, Fraction(0))
        self.edges.append((owner, Edge(kind=effect, opened=None, by=paid)))
        if owner:
            self._realise(owner, money)

    def split(self, booking: Booking, ratio: Fraction) -> None:
        """Hold so many times as much of a contract, at its cost."""
        account, conid = self._key(booking)
        for owner in [*self.owners(account, conid), OF_ACCOUNT]:
            place = (owner, account, conid)
            parcels = [*self.queues[place]]
            if owner:
                grown = (ratio - 1) * self.held(*place)
                self._post(booking, owner, "KEEPS", grown, Fraction(0), Fraction(0))
                pool = self.pools[place]
                self.pools[place] = replace(pool, quantity=pool.quantity * ratio)
            self.queues[place].clear()
            self._bring(place, place, parcels, booking, ratio)

    def replace(self, left: Booking, *came: Booking) -> None:
        """Hold something else instead of a contract, or the same in another account.

        Cost and day go from what left to what came, in proportion to what was taken. What is paid
        for it is a part of its cost; what is paid out is earned.

        Args:
            left: What left.
            came: What came for it, in one row or in several ones.
        """
        account, conid = self._key(left)
        fraction = -left.quantity / self.held(OF_ACCOUNT, account, conid)
        arrived = sum((row.quantity for row in came), Fraction(0))
        ratio = arrived / -left.quantity
        cost_of_one = min(0, left.cash) / -left.quantity

        for owner in [*self.owners(account, conid), OF_ACCOUNT]:
            place = (owner, account, conid)
            target = (owner, *self._key(came[0]))
            taken = self.held(*place) * fraction
            parcels = self._take(place, fraction)
            if owner:
                cash = left.cash * taken / -left.quantity
                self._post(left, owner, "LEAVES", -taken, cash, Fraction(0))
                self._move_pool(place, target, fraction, ratio, cost_of_one * taken)

            for row in came:
                part_of_row = row.quantity / arrived
                if owner:
                    came_of = taken * ratio * part_of_row
                    cash = row.cash * came_of / row.quantity
                    self._post(row, owner, "COMES", came_of, cash, Fraction(0))
                of_row = [parcel.cut(parcel.quantity * part_of_row) for parcel in parcels]
                self._bring(place, target, of_row, row, ratio, cost_of_one)
            if left.cash > 0:
                self._pay(owner, left, left.cash * taken / -left.quantity, "PAYS")

    def send(self, left: Booking) -> Sent:
        """Take what leaves for another account, where it comes on a later day."""
        account, conid = self._key(left)
        fraction = -left.quantity / self.held(OF_ACCOUNT, account, conid)
        sent = []
        for owner in [*self.owners(account, conid), OF_ACCOUNT]:
            place = (owner, account, conid)
            taken = self.held(*place) * fraction
            parcels = self._take(place, fraction)
            pool = None
            if owner:
                self._post(left, owner, "LEAVES", -taken, Fraction(0), Fraction(0))
                pool = self._take_of_pool(place, fraction)
            sent.append((owner, parcels, pool))
        return sent

    def receive(self, came: Booking, sent: Sent) -> None:
        """Bring what left another account on an earlier day."""
        for owner, parcels, pool in sent:
            target = (owner, *self._key(came))
            if pool is not None:
                self._post(came, owner, "COMES", pool.quantity, Fraction(0), Fraction(0))
                self._add_to_pool(target, pool)
            self._bring(target, target, parcels, came, Fraction(1))

    def _take(self, place: Place, fraction: Fraction) -> list[Parcel]:
        """Take a part of each parcel."""
        parcels = [*self.queues[place]]
        kept = [parcel.cut(parcel.quantity * (1 - fraction)) for parcel in parcels]
        self.queues[place] = deque(parcel for parcel in kept if parcel.quantity)
        return [parcel.cut(parcel.quantity * fraction) for parcel in parcels]

    def _move_pool(
        self, place: Place, target: Place, fraction: Fraction, ratio: Fraction, cost: Fraction
    ) -> None:
        moved = self._take_of_pool(place, fraction)
        money = total(moved.money, cost)
        self._add_to_pool(target, replace(moved, quantity=moved.quantity * ratio, money=money))

    def _take_of_pool(self, place: Place, fraction: Fraction) -> Parcel:
        pool = self.pools.pop(place)
        if fraction != 1:
            self.pools[place] = pool.cut(pool.quantity * (1 - fraction))
        return pool.cut(pool.quantity * fraction)

    def _bring(
        self,
        place: Place,
        target: Place,
        parcels: Iterable[Parcel],
        booking: Booking,
        ratio: Fraction,
        cost_of_one: Fraction = Fraction(0),
    ) -> None:
        for parcel in parcels:
            brought = replace(
                parcel,
                key=self._key(booking),
                through=booking.name,
                quantity=parcel.quantity * ratio,
                money=total(parcel.money, cost_of_one * parcel.quantity),
            )
            self.queues[target].append(brought)
            self.edges.append((place[0], Edge(kind="CAME_FROM", opened=parcel, by=brought)))
        in_order = sorted(self.queues[target], key=lambda parcel: parcel.opened)
        self.queues[target] = deque(in_order)

    # -- queues

    def _match(self, place: Place, parcel: Parcel) -> None:
        self._match_pool(place, parcel)
        queue = self.queues[place]
        while parcel.quantity and queue and queue[0].quantity * parcel.quantity < 0:
            first = queue.popleft()
            size = min(abs(first.quantity), abs(parcel.quantity))
            taken = size if first.quantity > 0 else -size
            by = parcel.cut(-taken)
            if place in self.lost:
                by = by.lost()
            edge = Edge(kind="CLOSES", opened=first.cut(taken), by=by)
            self.edges.append((place[0], edge))

            if first.quantity != taken:
                queue.appendleft(first.cut(first.quantity - taken))
            parcel = parcel.cut(parcel.quantity + taken)
        if parcel.quantity:
            queue.append(parcel)

    def _match_pool(self, place: Place, parcel: Parcel) -> None:
        """Realise what a parcel closes at the average cost, and add what it opens."""
        owner = place[0]
        if not owner:
            return

        pool = self.pools.get(place)
        if pool is None or pool.quantity * parcel.quantity > 0:
            self._add_to_pool(place, parcel)
            return

        size = min(abs(pool.quantity), abs(parcel.quantity))
        taken = size if pool.quantity > 0 else -size
        gain = total(pool.cut(taken).money, parcel.cut(-taken).money)
        self._realise(owner, None if place in self.lost else gain)
        del self.pools[place]
        if pool.quantity != taken:
            self.pools[place] = pool.cut(pool.quantity - taken)
        if parcel.quantity != -taken:
            self._add_to_pool(place, parcel.cut(parcel.quantity + taken))

    def _add_to_pool(self, place: Place, parcel: Parcel) -> None:
        pool = self.pools.get(place)
        if pool is None:
            self.pools[place] = parcel
            return

        self.pools[place] = replace(
            pool,
            quantity=pool.quantity + parcel.quantity,
            money=total(pool.money, parcel.money),
            fees=total(pool.fees, parcel.fees),
        )

    def _realise(self, owner: str, gain: Money) -> None:
        self.realised[owner] = total(self.realised[owner], gain)

    # -- names

    def _key(self, booking: Booking) -> tuple[str, int]:
        assert booking.contract is not None
        return booking.account, booking.contract.conid

    def _place(self, owner: str, booking: Booking) -> Place:
        return owner, *self._key(booking)

    def _parcel(
        self, booking: Booking, name: str, quantity: Fraction, money: Money, fees: Money
    ) -> Parcel:
        fees_if_known = None if money is None else fees
        name = name or booking.name
        return Parcel(
            name=name,
            key=self._key(booking),
            opened=booking.at,
            quantity=quantity,
            money=money,
            fees=fees_if_known,
        )

    def _post(
        self,
        booking: Booking,
        owner: str,
        effect: str,
        quantity: Fraction,
        cash: Money,
        fee: Money,
        name: str = "",
    ) -> None:
        is_prior = name.startswith("prior")
        self.posted.append(Posted(booking, owner, effect, quantity, cash, fee, is_prior))
        self.postings[PostingName(name or booking.name, owner, effect)] = PostingSize(
            quantity, cash, fee
        )

    def money_of(self, day: date, owner: str, account: str) -> list[Posted]:
        """Return the postings of an owner on a day."""
        return [
            posted
            for posted in self.posted
            if posted.owner == owner
            and posted.booking.account == account
            and posted.booking.day == day
            and not posted.is_prior
        ]
