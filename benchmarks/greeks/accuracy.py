"""Delta, gamma, theta and vega against the truth of the simulator's market, by kind of option.

The market has discrete dividends, early exercise and volatilities that move between the value and
the greeks. The model knows the broker's value, and the expected dividends of some expiries.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from statistics import median, quantiles

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from ib_gateway_simulator.market.market import Market
from ib_gateway_simulator.market.quote import Quote
from ib_gateway_simulator.market.underlying import OptionMarket, Underlying
from ib_gateway_simulator.protocol.contract import Contract, SecType
from position_sync_dagster.domain.instrument import Right, expiry_moment
from position_sync_dagster.sync.owner.option_model import (
    Method,
    ModelledGreeks,
    NoGreeks,
    OptionModel,
    OptionTerms,
    dividend_share,
)

RATE = 0.04
NOW = datetime(2028, 6, 1, 18, 0, tzinfo=UTC)
DAYS = (4, 8, 15, 29, 57, 92, 197, 365, 729)
PLACES = (-2.5, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.5)
"""Strikes, in standard deviations from the price."""

TICK = 0.01
STEPS_BETWEEN = 6
"""Steps of five seconds of trading between the value and the greeks."""

Key = tuple[str, str]
"""How far an option is in the money, and how long it has."""


KNOWN = {
    "dividends known of every expiry": DAYS,
    "dividends known of two expiries": (29, 197),
    "no dividends known": (),
}
"""The days to expiry of the options that are streamed, which have the expected dividends."""


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """A market with its options."""

    market: Market
    contracts: dict[int, Contract]

    def terms(self, known_days: Sequence[int] = DAYS) -> dict[int, OptionTerms]:
        """Give the terms of all options as a client knows them."""
        expiries = {_day(days) for days in known_days}
        known: dict[str, dict[float, float]] = defaultdict(dict)
        for conid, contract in self.contracts.items():
            quote = self.market.quote(conid)
            if contract.expiry in expiries and quote.greeks:
                share = quote.greeks.pv_dividend / quote.underlying_price
                known[contract.underlying][_years(contract)] = share
        return {
            conid: OptionTerms(
                right=Right.CALL if contract.right == "C" else Right.PUT,
                strike=contract.strike,
                expires_at=_end(contract),
                method=_method(contract),
                rate=RATE,
                dividend_share=dividend_share(
                    list(known[contract.underlying].items()), _years(contract)
                ),
            )
            for conid, contract in self.contracts.items()
        }


def _method(contract: Contract) -> Method:
    if contract.sec_type is SecType.FOP:
        return Method.FUTURE
    return Method.EUROPEAN if contract.underlying.startswith("IND") else Method.AMERICAN


def _day(days: int) -> str:
    return f"{(NOW + timedelta(days=days)).date():%Y%m%d}"


def _end(contract: Contract) -> datetime:
    return expiry_moment(date.fromisoformat(contract.expiry))


def _years(contract: Contract) -> float:
    return (_end(contract) - NOW) / timedelta(days=365)


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
    """Compare two models in the same market: errors, their time, and what has no greeks."""
    count = bench.size(12, 4)
    markets = [(simulate(count), known, days) for known, days in KNOWN.items()]
    markets.append((simulate(count, dividends=False), "no dividends are paid", ()))
    models: dict[str, OptionModel] = {
        "QdFp": OptionModel(),
        "Barone-Adesi-Whaley": OptionModel(
            lambda ql, process: ql.BaroneAdesiWhaleyApproximationEngine(process)
        ),
    }
    for simulated, known, days in markets:
        found = judge(simulated, models, simulated.terms(days))
        _report(bench, known, found["QdFp"], found["Barone-Adesi-Whaley"])


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The errors of one model in percent: of delta as of 1, of the others as of the truth."""

    errors: dict[str, dict[Key, list[float]]]
    reasons: dict[NoGreeks, int]
    milliseconds: float
    legs: int

    def all(self, greek: str) -> list[float]:
        """Give the errors of all kinds of options."""
        return [error for found in self.errors[greek].values() for error in found]


def judge(
    simulated: Simulated, models: dict[str, OptionModel], terms: dict[int, OptionTerms]
) -> dict[str, Judged]:
    """Compute the greeks of all options from their values of some steps before."""
    market = simulated.market
    before = {conid: market.quote(conid) for conid in simulated.contracts}
    for _ in range(STEPS_BETWEEN):
        market.step()
    return {name: _judged(simulated, model, terms, before) for name, model in models.items()}


def _judged(
    simulated: Simulated,
    model: OptionModel,
    terms: dict[int, OptionTerms],
    before: dict[int, Quote],
) -> Judged:
    found: dict[str, dict[Key, list[float]]] = defaultdict(lambda: defaultdict(list))
    reasons: dict[NoGreeks, int] = defaultdict(int)
    spent = 0.0
    for conid, contract in simulated.contracts.items():
        then, now = before[conid], simulated.market.quote(conid)
        truth = now.greeks
        assert then.greeks is not None
        assert then.mark is not None
        assert truth is not None
        began = time.process_time()
        volatility = model.implied_volatility(
            terms[conid],
            value=then.mark,
            spot=then.underlying_price,
            at=NOW,
            near=1.02 * then.greeks.implied_vol,
        )
        result: ModelledGreeks | NoGreeks = (
            volatility
            if isinstance(volatility, NoGreeks)
            else model.greeks(
                terms[conid], volatility=volatility, spot=now.underlying_price, now=NOW
            )
        )
        spent += time.process_time() - began
        if isinstance(result, NoGreeks):
            reasons[result] += 1
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
        milliseconds=1000 * spent / len(simulated.contracts),
        legs=len(simulated.contracts),
    )


def _kind(contract: Contract, delta: float) -> Key:
    """Name how far an option is in the money, by its delta, and how long it has."""
    steps = ((0.1, "far out"), (0.35, "out"), (0.65, "at"), (0.9, "in"), (1.1, "far in"))
    place = next(name for bound, name in steps if abs(delta) <= bound)
    days = (_end(contract) - NOW).days
    spans = ((8, "to 8 days"), (57, "to 57"), (197, "to 197"), (9999, "to 2 years"))
    return f"{place} of the money", next(name for bound, name in spans if days <= bound)


def _report(bench: Bench, known: str, ours: Judged, theirs: Judged) -> None:
    baseline = "Barone-Adesi-Whaley"
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
            against=baseline,
            theirs=of(theirs.all(greek)),
            target=Target(value=bound) if bound else None,
        )
        for what, greek, of, bound in rows
    ]
    lines.append(
        Line(
            what="volatility and greeks",
            state="one option",
            ours=ours.milliseconds,
            samples=ours.legs,
            against=baseline,
            theirs=theirs.milliseconds,
        )
    )
    reasons = ", ".join(f"{count} {reason.name}" for reason, count in ours.reasons.items())
    note = f"1 % of delta is 0.01; the others where vega is above a tick; no greeks: {reasons}"
    bench.report.add(f"Errors, {known}", lines, note)
    bench.report.add(
        f"Errors by kind of option, p95, {known}",
        list(_by_kind(ours, theirs, _p95, baseline)),
    )


def _by_kind(
    ours: Judged, theirs: Judged, of: Callable[[list[float]], float], baseline: str
) -> Iterator[Line]:
    for greek, kinds in ours.errors.items():
        for key, found in sorted(kinds.items(), key=lambda pair: (pair[0][1], pair[0][0])):
            other = theirs.errors[greek].get(key)
            yield Line(
                what=greek,
                state=f"{key[0]}, {key[1]}",
                ours=of(found),
                unit="%",
                samples=len(found),
                against=baseline,
                theirs=of(other) if other else None,
            )


def _p95(values: list[float]) -> float:
    return quantiles(values, n=20)[-1] if len(values) > 1 else values[0]
