"""The notices about data farms that a client gets when it logs in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from position_sync_dagster.simulator.protocol import messages
from position_sync_dagster.simulator.protocol.codes import Code
from position_sync_dagster.simulator.protocol.fields import Fields

HISTORY_FARM = "ushmds"
DEFINITION_FARM = "secdefnj"


def farm_notices(farms: Sequence[str], broken: Mapping[str, Code]) -> list[Fields]:
    """Return one notice for each farm, the farm of contract definitions last.

    Args:
        farms: The farms of market data.
        broken: The farms that are broken, also others, with their codes.
    """
    expected = {
        **dict.fromkeys(farms, Code.MARKET_FARM_OK),
        HISTORY_FARM: Code.HISTORY_FARM_OK,
        DEFINITION_FARM: Code.DEFINITION_FARM_OK,
    }
    others = {farm: code for farm, code in broken.items() if farm not in expected}
    notices = {**others, **expected, **broken}
    return [messages.error(-1, code, farm=farm) for farm, code in notices.items()]
