"""Say once when a strategy has lost more than a limit, and once when it has recovered.

Run it beside `make dev`: `.venv/bin/python examples/rules/loss_limit.py condor 500`. It follows the
ledger in a process of its own and prints what it would do. It counts whole holdings: of a leg that
several strategies share, each has all of the loss.
"""

import asyncio
import sys
from collections.abc import AsyncIterator

from position_sync_dagster import Lake, load_settings

# The loss must fall to this part of the limit before the rule can speak again (hysteresis).
RECOVERED = 0.8

COLUMNS = ("account", "conid", "unrealized_pnl")


async def losses(lake: Lake, strategy: str) -> AsyncIterator[float | None]:
    """Yield the strategy's unrealized loss after each commit; None while a leg's is unknown."""
    profits: dict[tuple[str, int], float | None] = {}
    async for rows, _token in lake.updates.follow():
        legs = [leg for leg in await lake.registry.get_all_active() if leg.strategy_id == strategy]
        for commit in rows.partition_by("ledger_version", maintain_order=True):
            profits |= {(row[0], row[1]): row[2] for row in commit.select(COLUMNS).iter_rows()}
            found = [
                profit
                for (account, conid), profit in profits.items()
                if any(leg.conid == conid and leg.account in (None, account) for leg in legs)
            ]
            known = [profit for profit in found if profit is not None]
            yield -sum(known) if found and len(known) == len(found) else None


async def watch(strategy: str, limit: float) -> None:
    """Print each change of what is known: beyond the limit, within it, or unknown."""
    said = ""
    async for loss in losses(Lake.of(load_settings()), strategy):
        if loss is None:
            state = "unknown"
        elif loss > limit or (said == "beyond" and loss > RECOVERED * limit):
            state = "beyond"
        else:
            state = "within"
        if state != said:
            print(f"{strategy}: {state} the limit of {limit:,.0f}; loss {loss}", flush=True)
        said = state


if __name__ == "__main__":
    asyncio.run(watch(sys.argv[1], float(sys.argv[2])))
