"""The book of the year: strategies of all kinds, opened and rolled by rule.

Each strategy has its own legs: strikes are chosen around the price, and no two strategies hold one
contract with different signs in one account, so that a holding is the sum of like legs.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta

from ib_gateway_simulator.clearing.securities import Category, Security
from tests.year.broker import ENDED_AT, SETTLED_AT, TRADED_AT, A, B, Broker
from tests.year.exchanges import (
    FRANKFURT,
    NEW_YORK,
    expiry_on_or_after,
    frankfurt_trades,
    is_third_friday,
    session_after,
)
from tests.year.market import (
    AAPL,
    ES,
    ESTX50,
    LAST_TRADES,
    MSFT,
    SAP,
    SPX,
    STRIKE_STEP,
    XYZ,
    D,
    future,
    option,
)

# The legs of each kind: right, steps from the price, quantity, weeks later than the nearest legs.
LEGS_OF_KINDS = """\
covered call: C 3 -1 0
put: P -4 -2 0
put spread: P -3 -1 0, P -6 1 0
call spread: C 3 -1 0, C 6 1 0
iron condor: P -6 1 0, P -3 -1 0, C 3 -1 0, C 6 1 0
butterfly: C -2 1 0, C 0 -2 0, C 2 1 0
strangle: P -2 1 0, C 2 1 0
straddle: P 0 -1 0, C 0 -1 0
calendar: P 0 -1 0, P 0 1 4
double calendar: P -2 -1 0, P -2 1 4, C 2 -1 0, C 2 1 4
ratio: C 1 1 0, C 4 -2 0
collar: P -3 1 0, C 3 -1 0
"""


def _legs_of(text: str) -> tuple[tuple[str, int, int, int], ...]:
    legs = [leg.split() for leg in text.split(",")]
    return tuple((right, int(steps), int(held), int(weeks)) for right, steps, held, weeks in legs)


_ROWS = (row.split(": ") for row in LEGS_OF_KINDS.splitlines())
KINDS = {kind: _legs_of(text) for kind, text in _ROWS}

# In which account a strategy is, on what, and how many of them there are of a hundred.
_PLACES: tuple[tuple[str, Security, int], ...] = (
    (A, AAPL, 24), (A, MSFT, 16), (A, XYZ, 12), (A, SPX, 18), (A, ES, 8), (B, ESTX50, 12),
    (B, SAP, 10),
)  # fmt: skip

# Below this price strikes are nearer to each other.
SMALL_PRICE = 150.0
SMALL_STEP = 2

# Of the assignments in the evening, this part is reported with the next session.
LATE_SHARE = 0.5

# Of six strategies, this one is opened, rolled once, and ended, and rests before it begins again.
CAMPAIGNS = 3
# It is closed so many days before its options would deliver something.
CLOSED_BEFORE = 3
REST = timedelta(days=3)
PAID_IN_CASH = {SPX, ESTX50}

# The kinds that hold a hundred shares of their underlying.
WITH_SHARES = {"covered call", "collar"}


@dataclass(slots=True, kw_only=True)
class Strategy:
    """A strategy, and the legs that it holds now.

    Attributes:
        tranches: How many sets of legs it holds, each two weeks after the one before.
        rolled_before: The days before the expiry on which it is rolled; 0: its legs end.
        trades_at: When it trades: before the program looks at the gateway, or while it does.
        is_campaign: Whether it ends after its first roll; no other strategy has its contracts.
        rests_until: When a campaign that ended begins again.
        opened: When the present campaign began.
        traded: The contracts of the present campaign.
    """

    name: str
    kind: str
    account: str
    under: Security
    weeks: int
    tranches: int
    rolled_before: int
    trades_at: time
    is_campaign: bool
    is_rolled: bool = False
    rests_until: date = date.min
    opened: date = date.min
    traded: list[Security] = field(default_factory=list)
    legs: list[dict[Security, int]] = field(default_factory=list)

    @property
    def held(self) -> dict[Security, int]:
        """Return all legs, with their quantities."""
        total: dict[Security, int] = {}
        for tranche in self.legs:
            for leg, quantity in tranche.items():
                total[leg] = total.get(leg, 0) + quantity
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A campaign that is over.

    Attributes:
        conids: Its contracts; no other strategy ever had them.
    """

    strategy: str
    account: str
    opened: date
    closed: date
    conids: frozenset[int]


def _minute_of(number: int) -> time:
    """Return a time before the program looks at the gateway, each a minute after the one before."""
    minutes = 40 + number % 50
    return time(9 + minutes // 60, minutes % 60)


def _front_future(day: date) -> Security:
    """Return the future of ES whose quarter ends four weeks after a day, or later."""
    for month in (3, 6, 9, 12, 15, 18):
        year = day.year + (month - 1) // 12
        number = (month - 1) % 12 + 1
        expiry = _third_friday(year, number)
        if expiry - day >= timedelta(days=84):
            return future(expiry)
    raise AssertionError(day)


def _third_friday(year: int, month: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(4 - first.weekday()) % 7 + 14)


class Book:
    """The strategies, and what they do on each session.

    Args:
        count: How many strategies there are.

    Attributes:
        ended: The campaigns that are over.
    """

    def __init__(self, seed: int, count: int) -> None:
        self._random = random.Random(f"{seed}:book")
        self._of_campaigns: set[int] = set()
        self.ended: list[Ended] = []
        self.strategies = [self._planned(number) for number in range(count)]

    @property
    def _by_time(self) -> list[Strategy]:
        return sorted(self.strategies, key=lambda strategy: strategy.trades_at)

    def _planned(self, number: int) -> Strategy:
        places = [place[:2] for place in _PLACES for _share in range(place[2])]
        account, under = places[number * 37 % len(places)]
        names = [
            name for name in KINDS
            if under.category is Category.STOCK or name not in WITH_SHARES
        ]  # fmt: skip
        kind = names[number % len(names)]
        weeks = self._random.choice((1, 2, 3, 5))
        rolled_before = self._random.choice((0, 0, 1, 3))
        tranches = 3 if len(KINDS[kind]) < 3 else 2
        is_campaign = number % 6 == CAMPAIGNS and under is not XYZ
        if is_campaign:
            tranches = 1
            rolled_before = rolled_before if under in PAID_IN_CASH else CLOSED_BEFORE
        return Strategy(
            name=f"{number + 1:02} {kind} {under.symbol}",
            kind=kind,
            account=account,
            under=under,
            weeks=weeks,
            tranches=tranches,
            rolled_before=rolled_before,
            trades_at=_minute_of(number) if number % 2 else TRADED_AT,
            is_campaign=is_campaign,
        )

    # -- a session ----------------------------------------------------------------------------

    def open_all(self, broker: Broker) -> None:
        """Open all strategies on the first session."""
        for strategy in self._by_time:
            self._fill_up(broker, strategy, is_first=True)

    def trade(self, broker: Broker) -> None:
        """Roll what is due, close what deliveries left, and open again what has ended."""
        for strategy in self._by_time:
            if strategy.account == B and not frankfurt_trades(broker.session):
                continue
            for tranche in list(strategy.legs):
                if self._is_rolled_today(strategy, tranche, broker.session):
                    self._roll_or_close(broker, strategy, tranche)
            self._fill_up(broker, strategy)
        self._close_deliveries(broker)

    def end_options(self, broker: Broker) -> None:
        """Let the options of this session end: at the open, by delivery, or worthless.

        Of those that are assigned, half are reported with the next session.
        """
        for strategy in self.strategies:
            for tranche in strategy.legs:
                for leg in [leg for leg in tranche if self._ends_today(leg, broker.session)]:
                    del tranche[leg]
            strategy.legs = [tranche for tranche in strategy.legs if tranche]
            if strategy.traded and not strategy.legs:
                self._end_campaign(strategy, broker.session)
        for account in broker.closed:
            for leg in self._ending(broker, account):
                self._end(broker, account, leg)

    def legs(self) -> dict[str, dict[Security, int]]:
        """Return the legs that each strategy holds, by its name."""
        return {strategy.name: strategy.held for strategy in self.strategies}

    # -- opening and rolling ------------------------------------------------------------------

    def _fill_up(self, broker: Broker, strategy: Strategy, *, is_first: bool = False) -> None:
        """Open the tranches that are missing, each later than the last.

        Args:
            is_first: On the first session, so that options end in the first week too.
        """
        if broker.session < strategy.rests_until:
            return

        while len(strategy.legs) < strategy.tranches:
            weeks = strategy.weeks + 2 * len(strategy.legs) - is_first
            legs = self._new_legs(broker, strategy, weeks)
            broker.trade_together(strategy.account, list(legs.items()), strategy.trades_at)
            strategy.legs.append(legs)
            if strategy.is_campaign:
                strategy.opened = broker.session
                strategy.traded = [*legs]
        if strategy.kind in WITH_SHARES:
            self._hold_shares(broker, strategy)

    def _hold_shares(self, broker: Broker, strategy: Strategy) -> None:
        alike = [
            other for other in self.strategies
            if other.kind in WITH_SHARES
            and (other.account, other.under) == (strategy.account, strategy.under)
        ]  # fmt: skip
        wanted = 100 * sum(campaign.tranches for campaign in alike if campaign.legs)
        missing = D(wanted) - broker.office.held(strategy.account, strategy.under)
        if missing:
            broker.trade(strategy.account, strategy.under, float(missing), above="0.03")

    def _roll_or_close(
        self, broker: Broker, strategy: Strategy, tranche: dict[Security, int]
    ) -> None:
        if not strategy.is_rolled:
            self._roll(broker, strategy, tranche)
            return

        closing = [(leg, -quantity) for leg, quantity in tranche.items()]
        broker.trade_together(strategy.account, closing, strategy.trades_at)
        strategy.legs.remove(tranche)
        self._end_campaign(strategy, broker.session)

    def _end_campaign(self, strategy: Strategy, session: date) -> None:
        ended = Ended(
            strategy=strategy.name,
            account=strategy.account,
            opened=strategy.opened,
            closed=session,
            conids=frozenset(leg.conid for leg in strategy.traded),
        )
        self.ended.append(ended)
        strategy.traded.clear()
        strategy.is_rolled = False
        strategy.rests_until = session + REST

    def _roll(self, broker: Broker, strategy: Strategy, tranche: dict[Security, int]) -> None:
        """Close a tranche and open its successor in one order."""
        closing = [(leg, -quantity) for leg, quantity in tranche.items()]
        strategy.legs.remove(tranche)
        weeks = strategy.weeks + 2 * len(strategy.legs)
        new = self._new_legs(broker, strategy, weeks)
        broker.trade_together(strategy.account, [*closing, *new.items()], strategy.trades_at)
        strategy.legs.append(new)
        if strategy.is_campaign:
            strategy.is_rolled = True
            strategy.traded += new

    def _new_legs(self, broker: Broker, strategy: Strategy, weeks: int) -> dict[Security, int]:
        day = broker.session
        expiry = expiry_on_or_after(day + timedelta(days=7 * weeks))
        under = strategy.under
        if strategy.under is ES:
            under = _front_future(day)

        spot = broker.market.spot(strategy.under)
        step = SMALL_STEP
        if spot > SMALL_PRICE:
            step = STRIKE_STEP[strategy.under]

        middle = round(spot / step) * step
        legs: dict[Security, int] = {}

        for right, steps, quantity, later in KINDS[strategy.kind]:
            ends = expiry
            if later:
                ends = expiry_on_or_after(expiry + timedelta(weeks=later))

            strike = middle + steps * step
            leg = option(under, ends, right, strike)
            while not self._may_hold(broker, strategy, leg, quantity) or leg in legs:
                strike += step if steps > 0 else -step
                leg = option(under, ends, right, strike)
            legs[leg] = quantity

        if strategy.is_campaign:
            self._of_campaigns |= {leg.conid for leg in legs}
        return legs

    def _may_hold(self, broker: Broker, strategy: Strategy, leg: Security, quantity: int) -> bool:
        """Return whether no other strategy holds a contract with the opposite sign.

        A campaign takes contracts that nobody ever had, and nobody takes one of a campaign.
        """
        if strategy.is_campaign:
            return leg.conid not in broker.office.securities
        if leg.conid in self._of_campaigns:
            return False
        return broker.office.held(strategy.account, leg) * quantity >= 0

    def _is_rolled_today(
        self, strategy: Strategy, tranche: dict[Security, int], session: date
    ) -> bool:
        nearest = min(date.fromisoformat(leg.expiry) for leg in tranche)
        is_near = nearest - session <= timedelta(days=strategy.rolled_before)
        return strategy.rolled_before > 0 and is_near and nearest > session

    # -- the end of options -------------------------------------------------------------------

    def _ends_today(self, leg: Security, session: date) -> bool:
        return date.fromisoformat(leg.expiry) <= session

    def _ending(self, broker: Broker, account: str) -> Sequence[Security]:
        securities = list(broker.office.securities.values())
        return [
            security for security in securities
            if security.is_option
            and self._ends_today(security, broker.session)
            and broker.office.held(account, security)
        ]  # fmt: skip

    def _end(self, broker: Broker, account: str, leg: Security) -> None:
        under = leg.underlying
        assert under is not None
        level = broker.market.price(under)
        is_assigned = broker.office.held(account, leg) < 0 and leg.intrinsic(level) > 0
        is_delivered = under.category is not Category.INDEX
        is_late = is_assigned and is_delivered and self._random.random() < LATE_SHARE
        is_late = is_late and under not in LAST_TRADES
        broker.office.end_option(
            account,
            leg,
            self._end_of(broker, under),
            level=level,
            report_day=session_after(broker.session) if is_late else None,
        )

    def _end_of(self, broker: Broker, under: Security) -> datetime:
        """Return when options on an underlying end on the present session."""
        if under in LAST_TRADES:
            local = datetime.combine(broker.session, LAST_TRADES[under], FRANKFURT)
            return local.astimezone(NEW_YORK)
        at_open = under is SPX and is_third_friday(broker.session)
        return broker.at(SETTLED_AT if at_open else ENDED_AT)

    def _close_deliveries(self, broker: Broker) -> None:
        """Sell what exercises and assignments brought: all shares and futures without a plan."""
        with_plan = {
            (strategy.account, strategy.under)
            for strategy in self.strategies
            if strategy.kind in WITH_SHARES
        }
        for account in broker.closed:
            for security in list(broker.office.securities.values()):
                is_delivered = security in (AAPL, MSFT, XYZ, SAP) or (
                    security.category is Category.FUTURE
                )
                held = broker.office.held(account, security)
                if is_delivered and held and (account, security) not in with_plan:
                    broker.trade(account, security, float(-held), above="-0.02")
