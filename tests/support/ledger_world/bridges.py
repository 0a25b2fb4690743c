"""What lots, campaigns, days and cash differ by: each difference is added up by the world itself.

None is taken as what is left of two sums.
"""

from collections.abc import Iterable, Mapping
from datetime import date
from fractions import Fraction

from polars import col

from position_sync_dagster.money.past.closes import EventKind
from tests.support.ledger_world.bookkeeper import Posted
from tests.support.ledger_world.product import Played
from tests.support.ledger_world.values import DAYS, NOBODY, Contract, Edge, Money
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
        bookings = [posted.booking for posted in self._world.books.posted]
        contracts = {booking.name: booking.contract for booking in bookings}
        return [
            (owner, edge)
            for owner, edge in self._world.books.edges
            if edge.kind != "EARNS" and not self._is_lost(edge, contracts)
        ]

    def _is_lost(self, edge: Edge, contracts: Mapping[str, Contract | None]) -> bool:
        contract = contracts.get(edge.by.through or edge.by.name)
        return contract is None or contract.conid in self._world.lost

    def _value(self, day: date, *, with_futures: bool) -> Fraction:
        """Return what is known of positions at a close; the value of a future is not paid."""
        close = self._world.closes[day]
        value = Fraction(0)
        for (_account, conid), quantity in close.positions.items():
            contract = self._world.contracts[conid]
            is_counted = with_futures or contract.category != "FUT"
            if is_counted and conid not in self._world.lost:
                value += quantity * close.marks[conid] * contract.multiplier

        return value

    def all(self) -> list[tuple[str, str, dict[str, Fraction]]]:
        """Return all of them, each between two sums."""
        return [
            ("lots", "campaigns", self.lots_to_campaigns()),
            ("campaigns", "days", self.campaigns_to_days()),
            ("days", "cash", self.days_to_cash()),
        ]

    def lots_to_campaigns(self) -> dict[str, Fraction]:
        """Return what is added to the profit of closed lots to get that of closed campaigns."""
        by_owner = by_account = of_nobody = of_what_goes_on = Fraction(0)
        for owner, edge in self._edges():
            gain = known(edge.gain)
            if not owner:
                by_account += gain
                continue

            by_owner += gain
            if edge.kind == "CAME_FROM" or (edge.by.name, owner) not in self._others_of:
                continue

            if owner == NOBODY:
                of_nobody += gain
            else:
                of_what_goes_on += gain

        return {
            "who had what was opened first": by_owner - by_account,
            "shares and rests of nobody": -of_nobody,
            "campaigns that go on": -of_what_goes_on,
            "dividends": _sum(known(campaign.income) for campaign in self._over),
        }

    def campaigns_to_days(self) -> dict[str, Fraction]:
        """Return what is added to the profit of closed campaigns to get that of all days."""
        of_nobody = [posted for posted in self._others if posted.owner == NOBODY]
        of_what_goes_on = [posted for posted in self._others if posted.owner != NOBODY]
        of_accounts = [posted for posted in self._posted if posted.booking.contract is None]
        held_before = [posted for posted in self._posted if posted.is_prior]
        return {
            "cash of what goes on": _money_of(of_what_goes_on),
            "cash of shares and rests of nobody": _money_of(of_nobody),
            "interest of accounts": _money_of(of_accounts),
            "value of what is held": self._value(DAYS[-1], with_futures=True),
            "cost of what was held before": -_money_of(held_before),
            "value of what was held before": -self._value(DAYS[0], with_futures=True),
        }

    def days_to_cash(self) -> dict[str, Fraction]:
        """Return what is added to the profit of all days to get the change of cash."""
        in_kind = of_unknown = of_owner = Fraction(0)
        for booking in self._world.bookings:
            if not booking.partner:
                in_kind += Fraction(booking.value or 0)
            if "Deposits" in booking.kind:
                of_owner += Fraction(booking.cash)
            if booking.contract is not None and booking.contract.conid in self._world.lost:
                of_unknown += Fraction(booking.cash - booking.fee)

        return {
            "value of what was held before": self._value(DAYS[0], with_futures=False),
            "value of what is held": -self._value(DAYS[-1], with_futures=False),
            "what came in kind": in_kind,
            "cash of what is not known": of_unknown,
            "cash of the owner": of_owner,
        }


def _money_of(postings: Iterable[Posted]) -> Fraction:
    return _sum(known(posted.money) for posted in postings)


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
    first, last = (events.filter(day=day)["amount"].sum() for day in (DAYS[0], DAYS[-1]))
    dollars = {"lots": sum(lots), "campaigns": sum(campaigns), "days": sum(days)}
    dollars["cash"] = last - first
    return {name: 100 * amount for name, amount in dollars.items()}
