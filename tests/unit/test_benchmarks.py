"""The benchmarks are programs too: each part can be imported with what the package offers."""

from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.gateways.arithmetic import carried, lay_out

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "benchmarks").rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)
COMPARED = {"persistqueue"}
"""What the benchmarks compare with, installed by `make bench` only."""


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
    assert (layout.a_lake, layout.lakes) == (7, 143)
    assert layout.a_lake * layout.lakes >= 1_000
    assert layout.usd < layout.usd_all_day


def test_the_price_follows_the_commits_and_not_the_legs():
    often, seldom = (lay_out(10, 10_000, 2.0, flush_s, 10.0) for flush_s in (1.0, 10.0))
    assert often.usd > 2 * seldom.usd
    assert lay_out(10, 10, 2.0, 1.0, 10.0).usd == often.usd
