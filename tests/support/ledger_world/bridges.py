"""What lots, campaigns, days and cash differ by: each difference is added up by the world itself.

None is taken as what is left of two sums.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from fractions import Fraction

from polars import col

from position_sync_dagster.money.past.closes import EventKind
from tests.support.ledger_world.product import Played
from tests.support.ledger_world.values import DAYS, NOBODY, Booking, Contract, Edge, Money
from tests.support.ledger_world.world import World, campaigns_of


def known(amount: Money) -> Fraction:
    """Return an amount that the world knows."""
    assert amount is not None
    return amount


class Bridges:
    """The differences, in cents, of what is known in a world.

    Strategies and contracts of which something is not known are in no sum; their cash is.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        over, others = campaigns_of(world)
        self._over = [campaign for campaign in over if campaign.owner not in world.lost]
        self._others = [posted for posted in others if posted.owner not in world.lost]
        self._posted = [each for each in world.books.posted if each.owner not in world.lost]
        self._others_of = {(posted.booking.name, posted.owner) for posted in self._others}

    def _edges(self) -> list[tuple[str, Edge]]:
        """Return the edges of known contracts but those of dividends."""
        conids = {
            posted.booking.name: posted.booking.contract for posted in self._world.books.posted
        }
        return [
            (owner, edge)
            for owner, edge in self._world.books.edges
            if edge.kind != "EARNS" and not self._is_lost(edge, conids)
        ]

    def _is_lost(self, edge: Edge, contracts: Mapping[str, Contract | None]) -> bool:
        contract = contracts.get(edge.by.through or edge.by.name)
        return contract is None or contract.conid in self._world.lost

    def _value(self, day: date, *, with_futures: bool) -> Fraction:
        """Return what is known of positions at a close; the value of a future is not paid."""
        close = self._world.closes[day]
        return _sum(
            quantity * close.marks[conid] * self._world.contracts[conid].multiplier
            for (_account, conid), quantity in close.positions.items()
            if conid not in self._world.lost
            and (with_futures or self._world.contracts[conid].category != "FUT")
        )

    def all(self) -> list[tuple[str, str, dict[str, Fraction]]]:
        """Return all of them, each between two sums."""
        return [
            ("lots", "campaigns", self.lots_to_campaigns()),
            ("campaigns", "days", self.campaigns_to_days()),
            ("days", "cash", self.days_to_cash()),
        ]

    def lots_to_campaigns(self) -> dict[str, Fraction]:
        """Return what is added to the profit of closed lots to get that of closed campaigns."""
        edges = self._edges()
        of_owners = [(owner, edge) for owner, edge in edges if owner]
        by_account = [edge.gain for owner, edge in edges if not owner]
        in_none = [
            (owner, known(edge.gain))
            for owner, edge in of_owners
            if edge.kind != "CAME_FROM" and (edge.by.name, owner) in self._others_of
        ]
        return {
            "who had what was opened first": _sum(known(edge.gain) for _owner, edge in of_owners)
            - _sum(map(known, by_account)),
            "shares and rests of nobody": -_sum(gain for who, gain in in_none if who == NOBODY),
            "campaigns that go on": -_sum(gain for who, gain in in_none if who != NOBODY),
            "dividends": _sum(known(campaign.income) for campaign in self._over),
            "value at which something changed accounts": self._changed_accounts(),
        }  # fmt: skip

    def _changed_accounts(self) -> Fraction:
        """Return what campaigns that are over gained by transfers between the accounts.

        There the value is cash; a lot keeps its cost.
        """
        transfers = {booking.name: booking for booking in self._world.bookings if booking.partner}
        value = _sum(
            known(posted.cash)
            for posted in self._posted
            if posted.booking.name in transfers and self._is_over(posted.booking, posted.owner)
        )

        gained = value
        for owner, edge in self._edges():
            came = transfers.get(edge.by.through) if owner else None
            if came is None or edge.kind != "CAME_FROM":
                continue
            [left] = [
                other
                for other in transfers.values()
                if other.contract == came.contract and other.account == came.partner
            ]
            for booking, sign in ((left, 1), (came, -1)):
                if self._is_over(booking, owner):
                    gained += sign * known(edge.size.money)
        return gained

    def _is_over(self, booking: Booking, owner: str) -> bool:
        return (booking.name, owner) not in self._others_of

    def campaigns_to_days(self) -> dict[str, Fraction]:
        """Return what is added to the profit of closed campaigns to get that of all days."""
        of_account = [each for each in self._posted if each.booking.contract is None]
        return {
            "cash of what goes on": _sum(
                known(each.money) for each in self._others if each.owner != NOBODY
            ),
            "cash of shares and rests of nobody": _sum(
                known(each.money) for each in self._others if each.owner == NOBODY
            ),
            "interest of accounts": _sum(known(each.money) for each in of_account),
            "value of what is held": self._value(DAYS[-1], with_futures=True),
            "cost of what was held before": -_sum(
                known(each.money) for each in self._posted if each.is_prior
            ),
            "value of what was held before": -self._value(DAYS[0], with_futures=True),
        }

    def days_to_cash(self) -> dict[str, Fraction]:
        """Return what is added to the profit of all days to get the change of cash."""
        bookings = self._world.bookings
        return {
            "value of what was held before": self._value(DAYS[0], with_futures=False),
            "value of what is held": -self._value(DAYS[-1], with_futures=False),
            "what came in kind": _sum(
                Fraction(booking.value or 0) for booking in bookings if not booking.partner
            ),
            "cash of what is not known": _sum(
                Fraction(booking.cash - booking.fee)
                for booking in bookings
                if booking.contract is not None and booking.contract.conid in self._world.lost
            ),
            "cash of the owner": _sum(
                Fraction(booking.cash) for booking in bookings if "Deposits" in booking.kind
            ),
        }


def _sum(amounts: Iterable[Fraction]) -> Fraction:
    return sum(amounts, Fraction(0))


def sums_of(played: Played) -> dict[str, float]:
    """Return the sums of the program, and the change of cash by its Cash Reports, in cents."""
    lost = played.world.lost
    closed = [lot for lot in played.lots if lot.closed is not None and lot.conid not in lost]
    lots = [lot.profit for lot in closed]
    campaigns = [row.profit for row in played.campaigns if row.strategy_id not in lost]
    is_known = ~col.strategy_id.is_in([name for name in lost if isinstance(name, str)])
    days = [profit for rows in played.days.values() for profit in rows.filter(is_known)["profit"]]
    is_cash = col.kind == EventKind.CASH_BALANCE.value
    events = played.lake.statement_events.rows(None, is_cash, ["day", "amount", "currency"])
    events = events.filter(currency="USD")
    by_day = {day: events.filter(day=day)["amount"].sum() for day in (DAYS[0], DAYS[-1])}
    return {
        "lots": 100 * sum(lots),
        "campaigns": 100 * sum(campaigns),
        "days": 100 * sum(days),
        "cash": 100 * (by_day[DAYS[-1]] - by_day[DAYS[0]]),
    }
