"""Rules that choose legs from what is held, so that nobody lists them; pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from position_sync_dagster.domain.exchange_time import exchange_date
from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.instrument import HasTerms, Instrument, Right, contract_name
from position_sync_dagster.domain.leg import ActiveContract, Leg, few


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
        instrument = holding.instrument
        symbol = instrument.symbol.upper()
        if self.underlyings is not None and symbol not in self.underlyings:
            return f"its underlying is {symbol or 'none'}"
        if self.right is not None and instrument.right is not self.right:
            return f"its right is {instrument.right or 'none'}"

        side = HoldingSide.LONG if holding.position > 0 else HoldingSide.SHORT
        if self.side is not None and side is not self.side:
            return f"its side is {side}"
        if self.accounts is not None and holding.account not in self.accounts:
            return f"its account is {holding.account or 'none'}"

        if self.days is None:
            return None
        if instrument.expiry is None:
            return "it has no expiry"

        days = (instrument.expiry - today).days
        least, greatest = self.days
        if least <= days <= greatest:
            return None
        return f"it expires in {days} days"


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
    taken: set[tuple[str | None, object]] = set()
    for listed_leg in listed:
        contract = _terms(listed_leg) if listed_leg.conid is None else listed_leg.conid
        taken.add((listed_leg.account, contract))

    free = [
        holding
        for holding in holdings
        if holding.position and taken.isdisjoint(_ways_to_list(holding))
    ]
    free.sort(key=_by_expiry)

    today = exchange_date(now)
    legs = []
    for rule in rules:
        not_taken = []
        conids: set[int] = set()
        for holding in free:
            conid = holding.instrument.conid
            has_room = rule.limit is None or len(conids) < rule.limit or conid in conids
            if not has_room or rule.refuses(holding, today) is not None:
                not_taken.append(holding)
                continue

            conids.add(conid)
            leg = leg_of(
                holding.instrument,
                rule.name,
                now,
                account=holding.account,
                priority=rule.priority,
            )
            legs.append(leg)
        free = not_taken
    return legs


def leg_of(terms: Instrument, strategy_id: str, added_at: datetime, **more: Any) -> ActiveContract:
    """Return a leg of a strategy whose contract is known from a holding."""
    known = (terms.conid, terms.symbol, terms.right, terms.strike, terms.expiry)
    return ActiveContract(*known, strategy_id, added_at, **more)


def _by_expiry(holding: BrokerPosition) -> tuple[str, int, str]:
    return str(holding.instrument.expiry), holding.instrument.conid, holding.account


def _terms(contract: HasTerms) -> tuple[object, ...]:
    return (contract.symbol, contract.right, contract.strike, contract.expiry)


def _ways_to_list(holding: BrokerPosition) -> set[tuple[str | None, object]]:
    """Return the ways in which the file may list a holding: by account or not, by conid or not."""
    conid = holding.instrument.conid
    terms = _terms(holding.instrument)
    return {(None, conid), (None, terms), (holding.account, conid), (holding.account, terms)}


def explain(
    conid: int,
    rules: Sequence[Rule],
    holdings: Iterable[BrokerPosition],
    legs: Iterable[ActiveContract],
    now: datetime,
) -> list[str]:
    """Return which strategy or rule has a contract in each account, or why none does."""
    names = {rule.name for rule in rules}
    legs_of_contract = [leg for leg in legs if leg.conid == conid]
    today = exchange_date(now)
    lines = []
    for holding in holdings:
        if holding.instrument.conid != conid or not holding.position:
            continue

        name = f"{contract_name(holding.instrument)} ({conid}) in {holding.account}"
        owners = set()
        for leg in legs_of_contract:
            if leg.account in (None, holding.account):
                kind = "rule" if leg.strategy_id in names else "strategy"
                owners.add((leg.strategy_id, f"the {kind} {leg.strategy_id}"))
        if owners:
            named = [text for _, text in sorted(owners)]
            lines.append(f"{name}: it belongs to {few(named, 5)}.")
            continue

        sentences = [f"{name}: no strategy has it."]
        for rule in rules:
            reason = rule.refuses(holding, today) or "its limit is reached"
            sentences.append(f"{rule.name} does not take it: {reason}.")
        lines.append(" ".join(sentences))
    return lines or [f"No account holds the contract {conid}, and rules take what is held."]
