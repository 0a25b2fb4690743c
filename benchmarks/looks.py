"""What a person finds who looks at a running `dagster dev`, and whether the events name every row.

`python -m benchmarks.looks look --port 3000 --minutes 30` looks every few seconds at all assets, as
the lineage page does. `python -m benchmarks.looks count --home .demo` compares the rows that the
events of an ended demo name with the rows of the ledger.
"""

import argparse
import json
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FRESH_SHARE = 0.8
BADGE_SHARE = 0.95

QUERY = """{ assetNodes {
  assetKey { path } isPartitioned isMaterializable staleStatus
  freshnessStatusInfo { freshnessStatus }
  assetMaterializations(limit: 1) { timestamp }
  assetObservations(limit: 1) { timestamp }
  assetChecksOrError { ... on AssetChecks { checks {
    name executionForLatestMaterialization { status }
  } } }
} }"""


@dataclass(slots=True)
class Looks:
    """What was found, counted per asset and per check."""

    assets: dict[str, Counter[str]] = field(default_factory=dict)
    checks: dict[str, Counter[str]] = field(default_factory=dict)
    badges: Counter[str] = field(default_factory=Counter)

    def add(self, nodes: list[dict[str, Any]]) -> list[str]:
        """Count one look, and return what was not green in it."""
        wrong = []
        for node in nodes:
            name = "/".join(node["assetKey"]["path"])
            if node["isPartitioned"]:
                continue
            events = node["assetMaterializations"] or node["assetObservations"]
            status = node["staleStatus"] if events else "NEVER"
            self.assets.setdefault(name, Counter())[status] += 1
            if status != "FRESH":
                wrong.append(f"{name} {status}")
            checks = node["assetChecksOrError"].get("checks", [])
            for check in checks:
                execution = check["executionForLatestMaterialization"]
                found = execution["status"] if execution else "OLD"
                self.checks.setdefault(f"{name}:{check['name']}", Counter())[found] += 1
                if found != "SUCCEEDED":
                    wrong.append(f"{check['name']} {found}")
            if checks:
                passed = all(
                    (check["executionForLatestMaterialization"] or {}).get("status") == "SUCCEEDED"
                    for check in checks
                )
                self.badges["passed" if passed else "not passed"] += 1
        return wrong

    def met(self) -> bool:
        """Return whether each asset and the badge were green often enough."""
        fresh = all(
            share(c, "FRESH") >= FRESH_SHARE and not c["NEVER"] for c in self.assets.values()
        )
        return fresh and share(self.badges, "passed") >= BADGE_SHARE


def share(counts: Counter[str], name: str) -> float:
    """Return which part of all counts one of them is."""
    return counts[name] / max(1, counts.total())


def ask(port: int) -> list[dict[str, Any]]:
    """Ask the UI's server about all assets."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": QUERY}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        found = json.load(answer)
    if "errors" in found:
        raise RuntimeError(found["errors"])
    nodes: list[dict[str, Any]] = found["data"]["assetNodes"]
    return nodes


def look(port: int, *, minutes: float, every_s: float) -> int:
    """Look for some minutes, and print the shares; 0 if all are met."""
    looks, before, end = Looks(), [""], time.monotonic() + minutes * 60
    while time.monotonic() < end:
        try:
            wrong = looks.add(ask(port))
        except OSError as error:
            wrong = [f"no answer: {error}"]
        if wrong != before:
            say(f"{time.strftime('%H:%M:%S')}  {', '.join(wrong) or 'all green'}")
        before = wrong
        time.sleep(every_s)
    say(f"\n{looks.badges.total()} looks")
    for name, counts in sorted(looks.assets.items()):
        say(f"  {name:24} fresh {share(counts, 'FRESH'):6.1%}  {dict(counts)}")
    for name, counts in sorted(looks.checks.items()):
        say(f"  {name:48} passed {share(counts, 'SUCCEEDED'):6.1%}  {dict(counts)}")
    say(f"  badge of all checks passed: {share(looks.badges, 'passed'):.1%}")
    return 0 if looks.met() else 1


def count(home: Path) -> int:
    """Compare the rows that events report with those of the ledger; 0 if they are equal.

    Rows after the version that was last reported wait for the next tick.
    """
    import dagster as dg
    import polars as pl

    from position_sync_dagster.money.lake import MoneyLake

    reported = through = 0
    with dg.DagsterInstance.from_config(str(home / "dagster_home")) as instance:
        for event in _events(instance):
            if "rows" in event.metadata:
                reported += int(event.metadata["rows"].value)
                through = max(through, int(event.metadata["delta_version"].value))
    rows = MoneyLake(home / "lake").updates.table.rows(columns=["ledger_version"])
    held = rows.filter(pl.col("ledger_version") <= through).height
    say(f"{reported} rows reported by events, {held} of {rows.height} up to version {through}")
    return 0 if reported == held else 1


def ended_runs(home: Path, job_name: str) -> list[str]:
    """Return how the runs of a job ended, newest first."""
    import dagster as dg

    with dg.DagsterInstance.from_config(str(home / "dagster_home")) as instance:
        runs = instance.get_runs(dg.RunsFilter(job_name=job_name))
    return [run.status.value for run in runs]


def _events(instance: Any) -> Iterator[Any]:
    import dagster as dg

    cursor = None
    while True:
        page = instance.fetch_materializations(
            dg.AssetKey("position_updates"), limit=500, cursor=cursor
        )
        yield from (record.asset_materialization for record in page.records)
        if not page.has_more:
            return
        cursor = page.cursor


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def main() -> int:
    """Parse the command line and run one of the two commands."""
    parser = argparse.ArgumentParser(prog="benchmarks.looks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    looking = commands.add_parser("look")
    looking.add_argument("--port", type=int, default=3000)
    looking.add_argument("--minutes", type=float, default=30.0)
    looking.add_argument("--every-s", type=float, default=3.0)
    counting = commands.add_parser("count")
    counting.add_argument("--home", type=Path, default=Path(".demo"))
    chosen = parser.parse_args()
    if chosen.command == "count":
        return count(chosen.home)
    return look(chosen.port, minutes=chosen.minutes, every_s=chosen.every_s)


if __name__ == "__main__":
    sys.exit(main())
