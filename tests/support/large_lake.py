"""A lake of many legs, each in a strategy of ten, with the rows of a morning: what a page reads."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.holding import BrokerPosition, Completeness, HoldingGreeks
from position_sync_dagster.domain.instrument import ContractDetails, Instrument, Right
from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.position_update import (
    PositionUpdate,
    Source,
    ValueOrigin,
)
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.settings import Settings
from tests.support.legs import leg
from tests.support.sessions import own

ACCOUNT = "DUSIM0001"
FIRST_CONID = 920_000_001
SPOT = 100.0

# The days until the expiries of an underlying, and its strikes.
EXPIRIES = (6, 20, 48, 111, 202)
STRIKES = range(85, 110)
QUANTITIES = (1.0, -1.0, 2.0, -3.0)
LEGS_OF_A_STRATEGY = 10

# How often each leg has a row on a morning, and how far these rows are apart.
ROUNDS = 12
ROUND_EVERY = timedelta(minutes=25)


class HeldLeg(NamedTuple):
    """A holding, and the strategy that has it."""

    contract: Instrument
    strategy: str
    quantity: float

    def price(self, step: int) -> float:
        """Return its price in a round."""
        conid = self.contract.conid
        return 1.0 + conid % 97 / 20 + step * 0.01 * (conid % 7 - 3)

    def money(self, step: int) -> dict[str, float]:
        """Return price, value and profits in a round."""
        units = self.quantity * 100
        price = self.price(step)
        return {
            "market_price": price,
            "market_value": price * units,
            "average_cost": 300.0,
            "unrealized_pnl": (price - 3.0) * units,
            "daily_pnl": (price - self.price(-3)) * units,
        }

    def greeks(self, at: datetime) -> HoldingGreeks:
        """Return greeks, which are not those of a model."""
        return HoldingGreeks(
            implied_vol=0.25 + self.contract.conid % 10 / 100,
            delta=0.4 if self.contract.right is Right.CALL else -0.4,
            gamma=0.02,
            vega=0.1,
            theta=-0.05,
            underlying_price=SPOT,
            greeks_time=at,
            greeks_method="made up",
            volatility_time=at,
        )


def make_lake(folder: Path, legs: int, names: int, rounds: int = ROUNDS) -> Settings:
    """Write the tables of a book over some underlyings; return the settings that name them.

    Args:
        rounds: How many rows of the ledger each leg has; its newest one is of now.
    """
    now = datetime.now(UTC)
    settings = Settings(_env_file=None, lake=str(folder))
    lake = MoneyLake.of(settings)
    lake.initialize_sync()

    of_a_name = -(-legs // names)
    held = [_held(number, of_a_name, now) for number in range(legs)]
    lake.registry.sync.add_many(_active_leg(each) for each in held)
    lake.contracts.put(_details(each.contract, now) for each in held)

    for step in range(ROUNDS - rounds, ROUNDS):
        at = now - ROUND_EVERY * (ROUNDS - 1 - step)
        lake.updates.sync.append(_row(each, step, at, settings) for each in held)

    reported = [_reported(each, now, settings) for each in held]
    lake.broker_positions.replace(settings.gateway_id, reported)
    lake.account_values.append([_account(now, settings)])
    # Since the first session what closes is recorded: strategies have a profit.
    own(lake, settings.gateway_id, lease_s=0.0)
    return settings


def _held(number: int, of_a_name: int, now: datetime) -> HeldLeg:
    name, place = divmod(number, of_a_name)
    symbol = f"SYM{name:03}"
    days = EXPIRIES[place // 10 % len(EXPIRIES)]
    contract = Instrument(
        conid=FIRST_CONID + number,
        symbol=symbol,
        sec_type="OPT",
        currency="USD",
        right=(Right.CALL, Right.PUT)[place % 2],
        strike=float(STRIKES[place % len(STRIKES)]),
        expiry=(now + timedelta(days=days)).date(),
        multiplier=100.0,
        trading_class=symbol,
    )
    strategy = f"{symbol}-{place // LEGS_OF_A_STRATEGY}"
    return HeldLeg(contract, strategy, QUANTITIES[number % len(QUANTITIES)])


def _active_leg(held: HeldLeg) -> ActiveContract:
    contract = held.contract
    return leg(
        contract.conid,
        held.strategy,
        symbol=contract.symbol,
        right=contract.right,
        strike=contract.strike,
        expiry=contract.expiry,
        account=ACCOUNT,
        quantity=held.quantity,
    )


def _details(contract: Instrument, now: datetime) -> ContractDetails:
    return ContractDetails(
        conid=contract.conid,
        symbol=contract.symbol,
        sec_type=contract.sec_type,
        currency=contract.currency,
        local_symbol=str(contract.conid),
        trading_class=contract.trading_class,
        exchange="SMART",
        under_conid=None,
        multiplier=contract.multiplier,
        price_magnifier=1,
        right=contract.right,
        strike=contract.strike,
        last_trade_date=contract.expiry,
        last_trade_time="16:00:00",
        time_zone="US/Eastern",
        trading_hours=None,
        seen_at=now,
        valid_exchanges="SMART",
        expires_on=contract.expiry,
        under_sec_type="STK",
    )


def _row(held: HeldLeg, step: int, at: datetime, settings: Settings) -> PositionUpdate:
    contract = held.contract
    greeks = held.greeks(at)
    return PositionUpdate(
        contract.conid,
        contract.symbol,
        contract.right,
        position=held.quantity,
        timestamp=at,
        account=ACCOUNT,
        strike=contract.strike,
        expiry=contract.expiry,
        value_time=at,
        value_source=ValueOrigin.PORTFOLIO,
        source=Source.QUEUE,
        gateway_id=settings.gateway_id,
        implied_vol=greeks.implied_vol,
        delta=greeks.delta,
        gamma=greeks.gamma,
        vega=greeks.vega,
        theta=greeks.theta,
        underlying_price=SPOT,
        greeks_time=at,
        **held.money(step),
    )


def _reported(held: HeldLeg, now: datetime, settings: Settings) -> BrokerPosition:
    return BrokerPosition(
        gateway_id=settings.gateway_id,
        account=ACCOUNT,
        instrument=held.contract,
        position=held.quantity,
        received_at=now,
        position_time=now,
        confirmed_at=now,
        snapshot_id="made",
        value_source=ValueOrigin.PORTFOLIO,
        completeness=Completeness.COMPLETE,
        greeks=held.greeks(now),
        **held.money(ROUNDS - 1),
    )


def _account(now: datetime, settings: Settings) -> AccountSummary:
    return AccountSummary(
        account=ACCOUNT,
        currency="USD",
        net_liquidation=10_000_000.0,
        cash=1_000_000.0,
        daily_pnl=-1_000.0,
        timestamp=now,
        pnl_received_at=now,
        values_received_at=now,
        gateway_id=settings.gateway_id,
    )
