"""The benchmarks are programs too: each part can be imported with what the package offers."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.gateways.arithmetic import carried, lay_out, usd_a_month
from benchmarks.gateways.documents import read_points, table_of
from benchmarks.program.latency import idle_ticks, is_idle

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "benchmarks").rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)
# What the benchmarks compare with, installed by `make bench` only.
COMPARED = {"persistqueue"}


@pytest.mark.parametrize("module", MODULES)
def test_a_part_of_the_benchmarks_imports(module):
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in COMPARED:
            raise


@pytest.mark.parametrize(
    ("rate", "flush_s", "heartbeat_s", "logins"),
    [
        (8.0, 1.0, 4.0, 4),
        (8.0, 10.0, 4.0, 16),  # the leases are what is full
        (8.0, 10.0, 20.0, 40),
        (0.5, 1.0, 4.0, 1),
    ],
)
def test_a_lake_carries_half_of_what_the_fuller_of_its_tables_takes(
    rate, flush_s, heartbeat_s, logins
):
    assert carried(rate, flush_s, heartbeat_s) == logins


def test_a_thousand_gateways_are_laid_out_over_lakes_that_carry_them():
    layout = lay_out(1_000, 1_000_000, rate=2.8, flush_s=5.0, heartbeat_s=10.0)
    assert layout.a_lake == 7
    assert layout.lakes == 143
    assert layout.a_lake * layout.lakes >= 1_000


def test_the_price_is_that_of_the_requests_that_were_seen():
    """It was that of four commits of seven requests each, a third of what a login really makes."""
    points = read_points(ROOT / "docs" / "gateways.csv")
    [one] = [p for p in points if (p.place, p.logins) == ("50 ms", 2)]
    assert round(one.requests / 2) == 30
    assert round(usd_a_month(one)) == 160
    assert usd_a_month(replace(one, requests=2 * one.requests, puts=2 * one.puts)) == pytest.approx(
        320, 1
    )
    text = (ROOT / "docs" / "scaling.md").read_text()
    assert all(line in text for line in table_of(points).splitlines())


@pytest.mark.parametrize(
    ("reason", "reported_at", "expected"),
    [
        ("pending 0, claimable 0", 99.0, True),
        ("3 claimed, 3 rows in 0.1 s; pending 0, claimable 3", 99.0, False),
        ("pending 0, claimable 0", 100.1, False),
        ("pending 2, claimable 2; released without a value, next within 30 s", 99.0, False),
        ("LIVE for 20 s", 99.0, True),
    ],
)
def test_a_tick_with_rows_or_for_which_requests_wait_is_not_idle(reason, reported_at, expected):
    tick = {"status": "SKIPPED", "timestamp": 100.0, "endTimestamp": 100.2, "skipReason": reason}
    assert is_idle(tick, [reported_at]) is expected


def test_a_tick_that_reported_any_table_is_not_idle():
    """The sums of strategies come later than the rows: their ticks were counted as idle ones."""
    ticks = [
        {
            "status": "SKIPPED", "timestamp": at, "endTimestamp": at + 0.2,
            "skipReason": "pending 0, claimable 0",
        }
        for at in (100.0, 105.0)
    ]  # fmt: skip
    assets = [[], [{"timestamp": "105100"}]]

    class Server:
        def ask(self, _query: str, **_variables: object) -> object:
            nodes = [{"assetMaterializations": events} for events in assets]
            state = {"sensorState": {"ticks": ticks}}
            return {"sensorOrError": state, "assetNodes": nodes}

    assert idle_ticks(Server(), "drain_queue") == [pytest.approx(200.0)]
