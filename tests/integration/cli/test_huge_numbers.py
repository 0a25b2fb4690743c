"""Numbers that no table holds: each command names what is wrong with them, in a few lines."""

import pytest

from position_sync_dagster.cli.audit import read_history
from position_sync_dagster.domain.update import QueueRequest
from position_sync_dagster.errors import InvalidLegError, InvalidRequestError

HUGE = (str(2**63), "9" * 5000)


@pytest.mark.parametrize("number", HUGE, ids=len)
@pytest.mark.parametrize(
    "command",
    [
        "history DU1:{}",
        "history DU1:1 --limit {}",
        "trace {}",
        "queue list --status PENDING --limit {}",
        "queue retry {}",
        "strategies add {} --symbol SPY --strategy a",
        "strategies add 3 --symbol SPY --strategy a --priority {}",
        "strategies remove {}",
        "positions --limit {}",
    ],
)
def test_a_number_that_is_too_large_is_a_short_error(lake, refuse, command, number) -> None:
    code, printed = refuse(*command.format(number).split())
    assert code == 2
    assert 0 < len(printed) < 1500
    assert "Traceback" not in printed


@pytest.mark.parametrize("number", [2**63, 10**5000], ids=lambda number: number.bit_length())
def test_a_call_with_a_number_that_is_too_large_is_an_error_of_ours(lake, number) -> None:
    queue, registry = lake.queue.sync, lake.registry.sync
    for call in (
        lambda: queue.insert(number, "SPY"),
        lambda: queue.insert_many([QueueRequest(1, "SPY", number)]),
        lambda: queue.claim_batch(number),
        lambda: queue.get_batch(None, number),
        lambda: registry.add_active(number, "SPY", strategy_id="a"),
        lambda: registry.remove_active(number),
        lambda: read_history(lake, "DU1", number, limit=1),
    ):
        with pytest.raises((InvalidRequestError, InvalidLegError)) as caught:
            call()
        assert len(str(caught.value)) < 300
