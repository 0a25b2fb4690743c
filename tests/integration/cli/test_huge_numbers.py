"""Numbers that no table holds: each command names what is wrong with them, in a few lines."""

import pytest

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
