"""Delta, gamma, theta and vega against the truth of the simulator's market, by kind of option.

The market has discrete dividends, early exercise and volatilities that move between the value and
the greeks. The model knows the broker's value, and the expected dividends of some expiries.
"""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from statistics import median, quantiles

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from ib_gateway_simulator.market.market import Market
from ib_gateway_simulator.market.underlying import OptionMarket, Underlying
from ib_gateway_simulator.protocol.contract import Contract, SecType
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.money.risk.model import Exercise
from position_sync_dagster.money.risk.terms import (
    ModelledLeg,
    OptionTerms,
    compute,
    dividends_of_shares,
)
from position_sync_dagster.money.trading_days import expiry_moment

RATE = 0.04
NOW = datetime(2028, 6, 1, 18, 0, tzinfo=UTC)
DAYS = (4, 8, 15, 29, 57, 92, 197, 365, 729)
# Strikes, in standard deviations from the price.
PLACES = (-2.5, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.5)

TICK = 0.01
# Steps of five seconds of trading between the value and the greeks.
STEPS_BETWEEN = 6

# How far an option is in the money, and how long it has.
Key = tuple[str, str]


# The days to expiry of the options that are streamed, which have the expected dividends.
KNOWN = {
    "dividends known of every expiry": DAYS,
    "dividends known of two expiries": (29, 197),
    "no dividends known": (),
}


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """A market with its options."""

    market: Market
    contracts: dict[int, Contract]

    def terms(self, known_days: Sequence[int] = DAYS) -> dict[int, OptionTerms]:
        """Give the terms of all options as a client knows them."""
        expiries = {_day(days) for days in known_days}
        known: dict[str, list[tuple[datetime, float]]] = defaultdict(list)
        for conid, contract in self.contracts.items():
            quote = self.market.quote(conid)
            if contract.expiry in expiries and quote.greeks:
                share = round(quote.greeks.pv_dividend / quote.underlying_price, 4)
                known[contract.underlying].append((_end(contract), share))
        paid = {symbol: dividends_of_shares(found, NOW) for symbol, found in known.items()}
        return {
            conid: OptionTerms(
                right=Right.CALL if contract.right == "C" else Right.PUT,
                strike=contract.strike,
                expires_at=_end(contract),
                exercise=_exercise(contract),
                rate=RATE,
                dividends=paid.get(contract.underlying, ()),
            )
            for conid, contract in self.contracts.items()
        }


def _exercise(contract: Contract) -> Exercise:
    if contract.sec_type is SecType.FOP:
        return Exercise.FUTURE
    return Exercise.EUROPEAN if contract.underlying.startswith("IND") else Exercise.AMERICAN


def _day(days: int) -> str:
    return f"{(NOW + timedelta(days=days)).date():%Y%m%d}"


def _end(contract: Contract) -> datetime:
    return expiry_moment(date.fromisoformat(contract.expiry))


def simulate(underlyings: int = 12, *, dividends: bool = True) -> Simulated:
    """Make a market of stocks with and without dividends, an index and a future."""
    found: dict[str, Underlying] = {}
    contracts: dict[int, Contract] = {}
    for number in range(underlyings):
        kind = {0: SecType.IND, 1: SecType.FUT}.get(number, SecType.STK)
        one = Underlying(
            symbol=f"{kind}{number}",
            conid=number + 1,
            price=(6500.0, 5200.0, 48.0, 95.0, 160.0, 230.0, 480.0, 620.0)[number % 8],
            volatility=0.16 + 0.04 * (number % 8),
            dividend_yield=0.006 * (number % 6) if dividends and kind is not SecType.FUT else 0.0,
            sec_type=kind,
        )
        found[one.symbol] = one
        for days in DAYS:
            for place in PLACES:
                strike = one.price * math.exp(place * one.volatility * math.sqrt(days / 365))
                for right in ("C", "P"):
                    conid = 1000 + len(contracts)
                    contracts[conid] = Contract(
                        conid=conid,
                        symbol=one.symbol,
                        sec_type=SecType.FOP if kind is SecType.FUT else SecType.OPT,
                        underlying=one.symbol,
                        under_conid=one.conid,
                        expiry=_day(days),
                        strike=float(f"{strike:.3g}"),
                        right=right,
                        multiplier=100,
                        currency="USD",
                        exchange="AMEX",
                        local_symbol=one.symbol,
                        trading_class=one.symbol,
                    )
    market = Market(
        underlyings=found,
        contracts=contracts,
        as_of=NOW,
        rate=RATE,
        seed=11,
        options=OptionMarket(),
    )
    return Simulated(market=market, contracts=contracts)


def errors(bench: Bench) -> None:
    """Compare the greeks of one batch with the market's: errors, time, and what has none."""
    count = bench.size(12, 4)
    markets = [(simulate(count), known, days) for known, days in KNOWN.items()]
    markets.append((simulate(count, dividends=False), "no dividends are paid", ()))
    for simulated, known, days in markets:
        _report(bench, known, judge(simulated, simulated.terms(days)))


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The errors of the model in percent: of delta as of 1, of the others as of the truth."""

    errors: dict[str, dict[Key, list[float]]]
    reasons: Counter[str]
    milliseconds: float
    legs: int

    def all(self, greek: str) -> list[float]:
        """Give the errors of all kinds of options."""
        return [error for found in self.errors[greek].values() for error in found]


def judge(simulated: Simulated, terms: dict[int, OptionTerms]) -> Judged:
    """Compute the greeks of all options from their values of some steps before."""
    market = simulated.market
    before = {conid: market.quote(conid) for conid in simulated.contracts}
    for _ in range(STEPS_BETWEEN):
        market.step()
    now = {conid: market.quote(conid) for conid in simulated.contracts}
    options = [
        ModelledLeg(
            conid=conid,
            underlying=0,
            terms=terms[conid],
            value=quote.mark or 0.0,
            value_at=NOW,
            spot_then=quote.underlying_price,
            spot=now[conid].underlying_price,
            spot_at=NOW,
        )
        for conid, quote in before.items()
    ]
    began = time.process_time()
    compute(options, NOW)
    spent = time.process_time() - began
    found: dict[str, dict[Key, list[float]]] = defaultdict(lambda: defaultdict(list))
    reasons: Counter[str] = Counter()
    for (conid, contract), leg in zip(simulated.contracts.items(), options, strict=True):
        truth = now[conid].greeks
        assert truth is not None
        result = leg.greeks
        if result is None:
            reasons[leg.reason.name if leg.reason else ""] += 1
            continue
        key = _kind(contract, truth.delta)
        found["delta"][key].append(100 * abs(result.delta - truth.delta))
        if truth.vega > TICK:
            for greek in ("gamma", "theta", "vega"):
                right, ours = getattr(truth, greek), getattr(result, greek)
                found[greek][key].append(100 * abs(ours - right) / max(abs(right), 1e-9))
    return Judged(
        errors=found,
        reasons=reasons,
        milliseconds=1000 * spent / len(options),
        legs=len(options),
    )


def _kind(contract: Contract, delta: float) -> Key:
    """Name how far an option is in the money, by its delta, and how long it has."""
    steps = ((0.1, "far out"), (0.35, "out"), (0.65, "at"), (0.9, "in"), (1.1, "far in"))
    place = next(name for bound, name in steps if abs(delta) <= bound)
    days = (_end(contract) - NOW).days
    spans = ((8, "to 8 days"), (57, "to 57"), (197, "to 197"), (9999, "to 2 years"))
    return f"{place} of the money", next(name for bound, name in spans if days <= bound)


def _report(bench: Bench, known: str, ours: Judged) -> None:
    rows = [
        ("delta, median", "delta", median, 1.0),
        ("delta, p95", "delta", _p95, 3.0),
        ("gamma, median", "gamma", median, None),
        ("gamma, p95", "gamma", _p95, None),
        ("theta, p95", "theta", _p95, 10.0),
        ("vega, p95", "vega", _p95, 10.0),
    ]
    lines = [
        Line(
            what=what,
            state=f"{ours.legs:,} options",
            ours=of(ours.all(greek)),
            unit="%",
            samples=len(ours.all(greek)),
            target=Target(value=bound) if bound else None,
        )
        for what, greek, of, bound in rows
    ]
    lines.append(
        Line(
            what="volatility and greeks",
            state="one option of the batch",
            ours=ours.milliseconds,
            samples=ours.legs,
        )
    )
    reasons = ", ".join(f"{count} {reason}" for reason, count in ours.reasons.items())
    note = f"1 % of delta is 0.01; the others where vega is above a tick; no greeks: {reasons}"
    bench.report.add(f"Errors, {known}", lines, note)
    bench.report.add(f"Errors by kind of option, p95, {known}", list(_by_kind(ours)))


def _by_kind(ours: Judged) -> Iterator[Line]:
    for greek, kinds in ours.errors.items():
        for key, found in sorted(kinds.items(), key=lambda pair: (pair[0][1], pair[0][0])):
            yield Line(
                what=greek,
                state=f"{key[0]}, {key[1]}",
                ours=_p95(found),
                unit="%",
                samples=len(found),
            )


def _p95(values: list[float]) -> float:
    return quantiles(values, n=20)[-1] if len(values) > 1 else values[0]
