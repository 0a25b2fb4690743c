"""The processor time of a book: every value changes each second, every underlying moves."""

import time
from collections import defaultdict
from datetime import datetime, timedelta

from benchmarks.bench import Bench
from benchmarks.greeks.accuracy import NOW, simulate
from benchmarks.outcome import Line, Target
from position_sync_dagster.sync.owner.account_greeks import LARGEST, AccountGreeks
from position_sync_dagster.sync.owner.option_model import OptionModel

BUDGETS = {1_000: 0.038, 20_000: 0.095}
"""Processor seconds in each second by the number of options."""

GOALS = {1_000: 4.0, 20_000: 10.0}
"""Points of a core."""


def passes(bench: Bench) -> None:
    """Measure the time and the age of greeks in books of two sizes."""
    lines = []
    for legs, budget in BUDGETS.items():
        for_s = bench.size(130, 8)
        spent, ages = _run(legs, for_s, budget)
        state = f"{legs:,} options, 12 underlyings"
        lines += [
            Line(
                what="points of a core",
                state=state,
                ours=100 * spent / for_s,
                unit="",
                samples=for_s,
                target=Target(value=GOALS[legs]),
            ),
            Line(
                what=f"age of the largest {min(legs, LARGEST):,}, longest",
                state=state,
                ours=max(ages[:LARGEST]),
                unit="s",
            ),
        ]
        if legs > LARGEST:
            lines.append(
                Line(
                    what="age of the others, longest",
                    state=state,
                    ours=max(ages[LARGEST:]),
                    unit="s",
                    target=Target(value=60.0),
                )
            )
    bench.report.add("Greeks of a book, each second", lines)


def _run(legs: int, for_s: int, budget: float) -> tuple[float, list[float]]:
    """Play seconds; return the processor time, and the ages at the end by size, largest first."""
    simulated = simulate(12)
    contracts = list(simulated.contracts.values())
    values: dict[int, tuple[float, datetime]] = {}
    model = OptionModel()
    greeks = AccountGreeks(value_of=values.get, session_open=lambda _conid: True)
    chosen = {conid: contracts[conid % len(contracts)] for conid in range(legs)}
    terms = simulated.terms()
    for conid, contract in chosen.items():
        greeks.add(conid, terms[contract.conid], contract.under_conid, size=float(legs - conid))
    computed: dict[int, float] = defaultdict(float)
    spent = 0.0
    for second in range(for_s):
        now = NOW + timedelta(seconds=second)
        simulated.market.step()
        for contract in contracts:
            spot = simulated.market.quote(contract.conid).underlying_price
            greeks.underlying_ticked(contract.under_conid, spot, now)
        prices = {c.conid: simulated.market.value_price(c.conid) for c in contracts}
        for conid, contract in chosen.items():
            if conid < LARGEST or (second + conid) % 180 == 0 or second == 0:
                price = prices[contract.conid]
                values[conid] = round(price, 4), now
        began = time.process_time()
        found = greeks.compute(model, now, monotonic=float(second), budget_s=budget)
        spent += time.process_time() - began
        computed |= dict.fromkeys((one.conid for one in found), float(second))
    return spent, [for_s - computed[conid] for conid in range(legs)]
