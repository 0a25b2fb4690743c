"""Rules that choose legs from what is held, so that nobody lists them; pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.instrument import HasTerms, Right, contract_name
from position_sync_dagster.domain.leg import ActiveContract, Leg, few, leg_of


class HoldingSide(StrEnum):
    """Whether a holding is long or short."""

    LONG = "long"
    SHORT = "short"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The conditions of which a holding must meet each one; None is no condition.

    Attributes:
        name: The name that its legs have as their strategy.
        underlyings: Symbols of the underlying.
        days: The least and the greatest number of days to the expiry.
        limit: The most contracts that it takes of a login; those that expire first come first.
        priority: As of a leg: 1 gets a market data line before 2.
    """

    name: str
    underlyings: frozenset[str] | None = None
    right: Right | None = None
    days: tuple[int, int] | None = None
    side: HoldingSide | None = None
    accounts: frozenset[str] | None = None
    limit: int | None = None
    priority: int = 1

    def refuses(self, holding: BrokerPosition, today: date) -> str | None:
        """Return why the rule does not take a holding; None if it does."""
        terms = holding.instrument
        side = HoldingSide.LONG if holding.position > 0 else HoldingSide.SHORT
        for name, wanted, has in (
            ("underlying", self.underlyings, terms.symbol.upper()),
            ("right", self.right and {self.right}, terms.right),
            ("side", self.side and {self.side}, side),
            ("account", self.accounts, holding.account),
        ):
            if wanted is not None and has not in wanted:
                return f"its {name} is {has or 'none'}"
        left = None if terms.expiry is None else (terms.expiry - today).days
        if self.days is not None and (left is None or not self.days[0] <= left <= self.days[1]):
            return "it has no expiry" if left is None else f"it expires in {left} days"
        return None


def exchange_date(now: datetime) -> date:
    """Return the date from which the days to an expiry count: that in New York."""
    return now.astimezone(NEW_YORK).date()


def legs_of_rules(
    rules: Sequence[Rule],
    holdings: Iterable[BrokerPosition],
    listed: Iterable[Leg],
    now: datetime,
) -> list[ActiveContract]:
    """Return the legs that rules choose, each of the first rule that takes it.

    Args:
        rules: In the order of the file.
        holdings: What is held.
        listed: The legs that the file lists, which no rule takes.
        now: The present moment.
    """
    taken = {(leg.account, _terms(leg) if leg.conid is None else leg.conid) for leg in listed}
    held = [one for one in holdings if one.position and taken.isdisjoint(_ways(one))]
    held.sort(key=lambda one: (str(one.instrument.expiry), one.instrument.conid, one.account))
    today, found = exchange_date(now), list[ActiveContract]()
    for rule in rules:
        fits = [one for one in held if rule.refuses(one, today) is None]
        conids = {*[*dict.fromkeys(one.instrument.conid for one in fits)][: rule.limit]}
        own = [one for one in fits if one.instrument.conid in conids]
        for one in own:
            share = {"account": one.account, "priority": rule.priority}
            found.append(leg_of(one.instrument, rule.name, now, **share))
        keys = {one.key for one in own}
        held = [one for one in held if one.key not in keys]
    return found


def _terms(one: HasTerms) -> tuple[object, ...]:
    return (one.symbol, one.right, one.strike, one.expiry)


def _ways(one: BrokerPosition) -> set[tuple[str | None, object]]:
    """Return the ways in which the file may list a holding: by account or not, by conid or not."""
    contracts = (one.instrument.conid, _terms(one.instrument))
    return {(account, contract) for account in (None, one.account) for contract in contracts}


def explain(
    conid: int,
    rules: Sequence[Rule],
    holdings: Iterable[BrokerPosition],
    legs: Iterable[ActiveContract],
    now: datetime,
) -> list[str]:
    """Return which strategy or rule has a contract in each account, or why none does."""
    names = {rule.name for rule in rules}
    own = [leg for leg in legs if leg.conid == conid]
    held = [one for one in holdings if one.instrument.conid == conid and one.position]
    lines = []
    for one in held:
        having = sorted({leg.strategy_id for leg in own if leg.account in (None, one.account)})
        what = f"{contract_name(one.instrument)} ({conid}) in {one.account}: "
        if having:
            kinds = (f"the {'rule' if name in names else 'strategy'} {name}" for name in having)
            lines.append(what + f"it belongs to {few(kinds, 5)}.")
            continue
        today = exchange_date(now)
        whys = [
            f"{rule.name} does not take it: {rule.refuses(one, today) or 'its limit is reached'}"
            for rule in rules
        ]
        lines.append(what + "no strategy has it. " + ". ".join([*whys, ""]).strip())
    return lines or [f"No account holds the contract {conid}, and rules take what is held."]
