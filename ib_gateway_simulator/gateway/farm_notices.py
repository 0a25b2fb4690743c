"""What a gateway says of data farms: at each log-in, and when its connection is restored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ib_gateway_simulator.protocol import messages
from ib_gateway_simulator.protocol.codes import Code
from ib_gateway_simulator.protocol.fields import Fields

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
    unexpected = {farm: code for farm, code in broken.items() if farm not in expected}
    notices = {**unexpected, **expected, **broken}
    return [messages.error(-1, code, farm=farm) for farm, code in notices.items()]


def farm_summary(farms: Sequence[str], broken: Collection[str]) -> str:
    """Return the part of a 1102 that names the farms.

    Both forms are recorded: Lean.Brokerages.InteractiveBrokers issues/169, IBC issues/143.
    """
    connected = "; ".join(farm for farm in farms if farm not in broken)
    if not broken:
        return f"All data farms are connected: {connected}."
    missing = "; ".join(sorted(broken))
    return (
        f"The following farms are connected: {connected}. "
        f"The following farms are not connected: {missing}."
    )
