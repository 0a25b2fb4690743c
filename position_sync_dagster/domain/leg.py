"""A leg of an active strategy: the membership of one contract in one strategy; pure.

Its contract is the one of its conid, or the one that its description fits.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Self

from position_sync_dagster.domain import instrument
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.holding import BrokerPosition, Key
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.errors import InvalidLegError

# The name, in place of a strategy, for the part of holdings that is in no strategy.
UNATTRIBUTED = "UNATTRIBUTED"

# A rest smaller than this part of a holding is a rounding of its parts, and does not count: binary
# sums of fractions, as of shares or coins, are off by less.
NEGLIGIBLE_QUANTITY = 1e-9


class LegState(StrEnum):
    """The state of a leg or another holding.

    A leg of a strategy is ARMED until the account holds it, then STREAMED with a market data line
    or in OVERFLOW without one, and CLOSED at the end. A holding that is in no strategy is
    MONITORED, or STREAMED if its contract has a line anyway; then CLOSED.
    """

    ARMED = "ARMED"
    STREAMED = "STREAMED"
    OVERFLOW = "OVERFLOW"
    MONITORED = "MONITORED"
    CLOSED = "CLOSED"


# The states of holdings that are valued by the queue.
QUEUED = frozenset({LegState.OVERFLOW, LegState.MONITORED})

LegStates = dict[Key, LegState]


# The fields by which a leg describes its contract: `Membership.terms`.
Terms = tuple[object, ...]


class StrategyId(str):
    """The id of a strategy: text, which equals the number that it was given as.

    In a set and as the key of a dict it is the text alone: it cannot have the hash of both, and
    the tables hold the text.

    >>> StrategyId("1") == 1, 1 == StrategyId("1"), StrategyId("1") == "1", StrategyId("01") == 1
    (True, True, True, False)
    >>> StrategyId("1") in [1], StrategyId("1") in {"1"}, StrategyId("1") in {1}
    (True, True, False)
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, str(other) if type(other) is int else other)

    __hash__ = str.__hash__


@dataclass(frozen=True, slots=True)
class Membership:
    """One leg of an active strategy, from `added_at` until `removed_at`, as a person gave it.

    One row of the table `active_strategies`. It is an `ActiveContract` once its conid is known, and
    an `UnresolvedLeg` before. Its fields are those of `GivenLeg`, and three more.

    Attributes:
        strategy_id: The strategy that the leg belongs to.
        added_at: When the leg joined the strategy (UTC).
        removed_at: When the leg left the strategy (UTC); null while it is active.
    """

    conid: int | None
    symbol: str
    right: Right | None
    strike: float | None
    expiry: date | None
    strategy_id: str
    added_at: datetime = field(default_factory=utc_now)
    quantity: float | None = None
    account: str | None = None
    priority: int = 1
    removed_at: datetime | None = None
    sec_type: str | None = None
    trading_class: str | None = None
    multiplier: float | None = None
    exchange: str | None = None
    currency: str | None = None
    since: date | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "strategy_id", StrategyId(self.strategy_id))

    @property
    def terms(self) -> Terms:
        """Everything that the leg says of its contract, apart from the conid."""
        return (
            self.symbol, self.right, self.strike, self.expiry, self.sec_type, self.trading_class,
            self.multiplier, self.exchange, self.currency,
        )  # fmt: skip

    @property
    def described(self) -> str:
        """The terms as text, such as "SPX 2027-01-15 5000 CALL class SPXW"."""
        terms = (self.symbol, self.expiry, self.strike, self.right, self.sec_type)
        named = {
            "class": self.trading_class, "multiplier": self.multiplier, "on": self.exchange,
        }  # fmt: skip
        words = [word(term) for term in terms if term]
        words.extend(f"{name} {word(value)}" for name, value in named.items() if value)
        if self.currency:
            words.append(self.currency)
        return " ".join(words)

    def ended(self, at: datetime) -> Self:
        """Return the same membership, ended at this time."""
        return replace(self, removed_at=at)


@dataclass(frozen=True, slots=True)
class ActiveContract(Membership):
    """A leg of an active strategy whose contract is known.

    Attributes:
        resolved_at: When the conid was found from the description; null for a leg given by conid.
        rolled_from: Conids whose places it took by rolls, the first one first, separated by commas.
    """

    conid: int
    resolved_at: datetime | None = None
    rolled_from: str | None = None

    @property
    def key(self) -> tuple[str, str | None, int]:
        """(strategy_id, account, conid): at most one active membership has this key."""
        return (self.strategy_id, self.account, self.conid)

    @property
    def replaced(self) -> list[int]:
        """The conids of `rolled_from`."""
        return [int(conid) for conid in (self.rolled_from or "").split(",") if conid]


# What is said of a leg whose contract nobody has looked for.
NOT_LOOKED_UP = "its contract has not been looked up yet"


@dataclass(frozen=True, slots=True)
class UnresolvedLeg(Membership):
    """A leg that was given without a conid, until the gateway names its one contract.

    It is ARMED: it is not streamed, and it affects no other leg.

    Attributes:
        problem: Why no conid was found: none or several contracts match, with the candidates.
    """

    problem: str | None = None

    @property
    def key(self) -> tuple[str, str | None, Terms]:
        """(strategy_id, account, terms): at most one active membership has this key."""
        return (self.strategy_id, self.account, self.terms)

    def resolved(self, conid: int, at: datetime | None) -> ActiveContract:
        """Return the same membership with its contract; `at` None: it was given, not searched."""
        membership = {name: getattr(self, name) for name in _MEMBERSHIP}
        return ActiveContract(**membership | {"conid": conid}, resolved_at=at)


_MEMBERSHIP = tuple(field.name for field in fields(Membership))

# A leg with its contract, or one whose contract is still to be found.
Leg = ActiveContract | UnresolvedLeg


def strategy_name(strategy_id: str) -> str:
    """Return the name of a strategy.

    Raises:
        InvalidLegError: It is UNATTRIBUTED, in whatever case.
    """
    if strategy_id.strip().upper() == UNATTRIBUTED:
        raise InvalidLegError(
            f"The strategy {strategy_id!r} has the name of what no strategy has of an account.",
            remedy="Give the strategy another name.",
        )
    return strategy_id


def word(value: object) -> str:
    """Return a value as text, with all digits of a number; "none" for None.

    >>> word(12_500_000.0), word(None)
    ('12500000', 'none')
    """
    if isinstance(value, float):
        return instrument.digits(value)
    return "none" if value is None else str(value)


def few(names: Iterable[object], most: int, separator: str = ", ") -> str:
    """Return the first names as text, and how many more there are.

    >>> few([3, 1, 2], 2), few(["SPY"], 2)
    ('3, 1 and 1 more', 'SPY')
    """
    listed = list(map(str, names))
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return f"{separator.join(listed[:most])}{more}"


def route(
    holdings: Iterable[BrokerPosition],
    legs: Iterable[ActiveContract],
    lines: frozenset[int],
    *,
    sec_types: Iterable[str],
) -> dict[Key, LegState]:
    """Decide the route of each holding; one line serves every holding of its conid.

    A conid with a line is STREAMED in each account that holds it, in a strategy or not, since that
    costs nothing. Without a line, an active leg is OVERFLOW and any other holding MONITORED. What
    is no longer held is CLOSED.

    Args:
        holdings: Every holding of the login.
        legs: The active legs of strategies.
        lines: The conids that hold a line.
        sec_types: Holdings of other security types have no route.

    Returns:
        (account, conid) → the state of the holding.
    """
    allowed = frozenset(sec_types)
    active = {(leg.account, leg.conid) for leg in legs}  # account None: a leg of any account
    routes = {}
    for holding in holdings:
        if holding.instrument.sec_type not in allowed:
            continue

        conid = holding.instrument.conid
        if holding.position == 0:
            state = LegState.CLOSED
        elif conid in lines:
            state = LegState.STREAMED
        elif active.isdisjoint([(None, conid), holding.key]):
            state = LegState.MONITORED
        else:
            state = LegState.OVERFLOW
        routes[holding.key] = state
    return routes
