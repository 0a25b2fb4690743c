"""Rules that choose legs from what is held, so that nobody lists them, and how a file has them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from enum import StrEnum
from itertools import product
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from position_sync_dagster.domain import instrument
from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.instrument import HasTerms, Instrument
from position_sync_dagster.domain.leg import ActiveContract, Leg, strategy_name
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.errors import InvalidLegError, shown
from position_sync_dagster.lake.strategies_file import Priority
from position_sync_dagster.sync.exchange_days import LISTED, day_of
from position_sync_dagster.yaml_file import Part, Text


class HoldingSide(StrEnum):
    """Whether a holding is long or short."""

    LONG = "long"
    SHORT = "short"


Right = Annotated[instrument.Right, BeforeValidator(instrument.parse_right)]


def _days(text: object) -> tuple[int, int]:
    """Read a span of days, such as "0-60"."""
    match = re.fullmatch(r"(\d{1,5})\s*-\s*(\d{1,5})", str(text).strip())
    if match is not None:
        first, last = map(int, match.groups())
        if first <= last:
            return first, last

    raise InvalidLegError(f"days {shown(text)} is no span of days", remedy='Write it as "0-60"')


def as_list(value: object) -> list[object]:
    """Return a list of a file, or the only value as one."""
    if isinstance(value, list):
        return value
    return [value]


def _in_capitals(names: frozenset[str]) -> frozenset[str]:
    return frozenset(map(str.upper, names))


Texts = Annotated[frozenset[Text], BeforeValidator(as_list)]
Symbols = Annotated[Texts, AfterValidator(_in_capitals)]


class RuleMatch(Part):
    """The conditions of which a holding must meet each one; None is no condition.

    Attributes:
        underlyings: Symbols of the underlying.
        days: The least and the greatest number of days to the expiry.
    """

    underlyings: Symbols | None = Field(None, alias="underlying")
    right: Right | None = None
    days: Annotated[tuple[int, int], BeforeValidator(_days)] | None = None
    side: HoldingSide | None = Field(None, description="Write long or short")
    accounts: Texts | None = Field(None, alias="account")

    def takes(self, holding: BrokerPosition, today: date) -> bool:
        """Return whether a holding meets each condition."""
        contract = holding.instrument
        side = HoldingSide.LONG if holding.position > 0 else HoldingSide.SHORT
        if self.right not in (None, contract.right) or self.side not in (None, side):
            return False
        if self.underlyings is not None and contract.symbol.upper() not in self.underlyings:
            return False
        if self.accounts is not None and holding.account not in self.accounts:
            return False
        if self.days is None:
            return True

        least, greatest = self.days
        expiry = contract.expiry
        return expiry is not None and least <= (expiry - today).days <= greatest


class Rule(Part):
    """A rule, whose legs are what is held and matches.

    Attributes:
        name: The name that its legs have as their strategy.
        limit: The most contracts that it takes of a login; those that expire first come first.
        priority: As of a leg: 1 gets a market data line before 2.
    """

    name: Annotated[str, AfterValidator(strategy_name)] = Field(
        alias="rule", pattern=r".*\S", description="Write its name"
    )
    match: RuleMatch
    priority: Priority = 1
    limit: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Write the most contracts that it takes"
    )


def legs_of_rules(
    rules: Sequence[Rule],
    holdings: Iterable[BrokerPosition],
    listed: Iterable[Leg],
    now: datetime,
    calendar: str = LISTED,
) -> list[ActiveContract]:
    """Return the legs that rules choose, each of the first rule that takes it.

    Args:
        rules: In the order of the file.
        holdings: What is held.
        listed: The legs that the file lists, which no rule takes.
        now: The present moment.
        calendar: The exchange whose day is today.
    """
    taken = {(leg.account, leg.conid or _terms(leg)) for leg in listed}
    today = day_of(calendar, now)
    legs = []
    conids_of = defaultdict[str, set[int]](set)
    for holding in sorted(holdings, key=_by_expiry):
        if not holding.position or not taken.isdisjoint(_ways_to_list(holding)):
            continue

        contract = holding.instrument
        for rule in rules:
            conids = conids_of[rule.name]
            has_room = rule.limit is None or len(conids) < rule.limit or contract.conid in conids
            if has_room and rule.match.takes(holding, today):
                conids.add(contract.conid)
                more = {"account": holding.account, "priority": rule.priority}
                legs.append(leg_of(contract, rule.name, now, **more))
                break
    return legs


def leg_of(
    terms: Instrument | PositionChange, strategy_id: str, added_at: datetime, **more: Any
) -> ActiveContract:
    """Return a leg of a strategy whose contract is known from a holding or from its change."""
    return ActiveContract(
        terms.conid, terms.symbol, terms.right, terms.strike, terms.expiry, strategy_id, added_at,
        **more,
    )  # fmt: skip


def _by_expiry(holding: BrokerPosition) -> tuple[str, int, str]:
    return str(holding.instrument.expiry), holding.instrument.conid, holding.account


def _terms(contract: HasTerms) -> tuple[object, ...]:
    return (contract.symbol, contract.right, contract.strike, contract.expiry)


def _ways_to_list(holding: BrokerPosition) -> set[tuple[str | None, object]]:
    """Return the ways in which the file may list a holding: by account or not, by conid or not."""
    conid = holding.instrument.conid
    terms = _terms(holding.instrument)
    return set(product((None, holding.account), (conid, terms)))
