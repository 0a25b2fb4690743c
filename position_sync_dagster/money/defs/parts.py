"""What money adds to the core: its tables, parts of the stream and of ticks, stated positions."""

from position_sync_dagster.defs import drain, resources, stream
from position_sync_dagster.defs.assets import past_days
from position_sync_dagster.money.defs import tick_parts
from position_sync_dagster.money.defs.statements import FOLDER
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.statement_days import StatementDays
from position_sync_dagster.money.stream_parts import with_money


def add_to_core() -> None:
    """Fill the ports of the core, before its definitions are loaded."""
    resources.LAKES[:] = [MoneyLake]
    stream.COMPLETE[:] = [with_money]
    past_days.STATED[:] = [StatementDays]
    past_days.STATED_BY[:] = [FOLDER]
    drain.PARTS[:] = [tick_parts.derive_exposure, tick_parts.explain_closes, tick_parts.record_risk]
