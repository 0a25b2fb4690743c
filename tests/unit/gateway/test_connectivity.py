"""Whether the gateway has IB, and which of its data farms are broken, by its messages."""

import pytest

from position_sync_dagster.errors import BrokerUnavailableError
from position_sync_dagster.gateway.codes import Connectivity, GatewayCode


@pytest.fixture
def connectivity():
    return Connectivity()


@pytest.mark.parametrize("lost", [GatewayCode.CONNECTIVITY_LOST, GatewayCode.GATEWAY_OFFLINE])
@pytest.mark.parametrize(
    "restored", [GatewayCode.RESTORED_DATA_KEPT, GatewayCode.RESTORED_DATA_LOST]
)
def test_ib_is_away_from_the_message_of_its_loss_to_that_of_its_return(
    connectivity, lost, restored
):
    connectivity.take(lost, "no IB")
    assert connectivity.lost is not None
    with pytest.raises(BrokerUnavailableError, match="no IB"):
        connectivity.require_ib()
    connectivity.take(GatewayCode.MARKET_DATA_FARM_OK, "is OK:usfarm")
    assert connectivity.lost is not None
    connectivity.take(restored, "back")
    connectivity.require_ib()
    assert connectivity.lost is None


def test_a_data_farm_is_broken_until_it_works_or_is_idle(connectivity):
    farms = connectivity.broken_farms
    for name in ("usfarm", "usfarm.nj", "ushmds", "secdefil"):
        connectivity.take(GatewayCode.MARKET_DATA_FARM_BROKEN, f"is broken:{name}")
    connectivity.take(GatewayCode.MARKET_DATA_FARM_OK, "is OK:usfarm")
    connectivity.take(GatewayCode.HISTORY_FARM_INACTIVE, "is inactive, upon demand.ushmds")
    connectivity.take(2159, "Sec-def data farm connection is inactive, upon demand.secdefil")
    connectivity.take(GatewayCode.CONNECTIVITY_LOST, "no IB")
    assert farms == {"usfarm.nj": 2103}
    assert connectivity.broken_farms == {"usfarm.nj": 2103}


def test_a_loss_is_said_in_readable_words_with_its_code(connectivity):
    connectivity.take(GatewayCode.GATEWAY_OFFLINE, r"\u4e0eIBKR\u65ad\u5f00")
    assert connectivity.lost == "与IBKR断开 (code 2110)"
