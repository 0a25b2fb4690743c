"""Strategies whose legs were rolled: what to change, and the change in one commit."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from position_sync_dagster.domain.closures import current_closures
from position_sync_dagster.domain.leg import ActiveContract, make_leg
from position_sync_dagster.domain.rolls import Roll, rolls_of
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.sync.explain_closes import BEFORE, WINDOW


@dataclass(frozen=True, slots=True, kw_only=True)
class LegChange:
    """A leg that was rolled, and the one that replaces it."""

    roll: Roll
    before: ActiveContract
    after: ActiveContract


def proposed(lake: Lake, now: datetime, within: timedelta) -> list[LegChange]:
    """Return the legs of strategies that were rolled completely, each with its new contract.

    A leg that has a quantity is rolled if that is what was rolled.
    """
    since = now - WINDOW
    rolls = rolls_of(
        current_closures(lake.closures.records()),
        lake.position_changes.records(since),
        lake.executions.records(since - BEFORE),
        within,
    )
    legs = lake.registry.sync.get_all_active()
    keys = {leg.key for leg in legs}
    found: list[LegChange] = []
    for roll in rolls:
        for leg in legs:
            whole = leg.quantity is None or leg.quantity == roll.quantity
            if (
                leg.conid != roll.closed_conid
                or leg.account not in (None, roll.account)
                or leg.added_at > roll.at
                or not (roll.complete and whole)
            ):
                continue
            opened = roll.opened
            after = make_leg(
                conid=opened.conid,
                symbol=opened.symbol,
                right=opened.right,
                strike=opened.strike,
                expiry=opened.expiry,
                strategy_id=leg.strategy_id,
                added_at=now,
                quantity=leg.quantity,
                account=leg.account,
                priority=leg.priority,
            )
            if isinstance(after, ActiveContract) and after.key not in keys:
                found.append(LegChange(roll=roll, before=leg, after=after))
    return found


def apply(lake: Lake, changes: Sequence[LegChange]) -> int:
    """Replace the rolled legs in one commit; return how many were replaced.

    A leg that was changed or removed meanwhile is left alone.
    """
    return lake.registry.sync.exchange([(one.before, one.after) for one in changes])
