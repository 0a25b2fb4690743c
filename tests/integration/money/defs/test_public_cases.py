"""Cases that users reported in public, by Dagster and the commands, against numbers by hand."""

import csv
import json
from collections import defaultdict
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any

import dagster as dg
import pytest

from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.tables import BOOKS
from position_sync_dagster.settings import load_settings
from tests.integration.defs.assets.test_daily_positions import partition_range
from tests.support.command_line import json_of, run
from tests.support.empty_lakes import put_tables
from tests.support.public_cases import CASES, CFD_DAYS, MON, WED, PublicCase

STEPS = (
    ("active_strategies",),
    ("flex_statements", "executions", "statement_events"),
    ("closed_campaigns",),
    ("daily_positions", "profit_explained", "books"),
)

# One account for each case. The other one of a migration has a digit more.
ACCOUNT_OF = {name: f"UC{number:02}" for number, name in enumerate(CASES, start=1)}
OF_CFD = "UCFD"


@dataclass(frozen=True, slots=True)
class Answers:
    """What the commands answer of all cases, which are in one lake."""

    campaigns: list[dict[str, Any]]
    fills: dict[str, Any]
    groups: list[dict[str, Any]]
    lots: list[dict[str, str]]
    books: list[dict[str, Any]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> Answers:
    """Materialize the statements of all cases as a user does, and ask the commands."""
    from position_sync_dagster.component import PositionSyncComponent

    home = tmp_path_factory.mktemp("cases")
    folder = home / "flex"
    folder.mkdir()
    for name, account in ACCOUNT_OF.items():
        for number, text in enumerate(CASES[name].files(account)):
            folder.joinpath(f"{account}-{number}.xml").write_text(text)
    for number, text in enumerate(PublicCase(statements=CFD_DAYS).files(OF_CFD)):
        folder.joinpath(f"{OF_CFD}-{number}.xml").write_text(text)

    legs_of = defaultdict(list)
    for name, account in ACCOUNT_OF.items():
        for conid, strategy in CASES[name].legs.items():
            leg = {"conid": conid, "symbol": "S", "account": account}
            legs_of[f"{strategy}-{account}"].append(leg)
    written = [
        {"strategy_id": strategy, "since": "2026-01-02", "legs": legs}
        for strategy, legs in legs_of.items()
    ]
    (home / "strategies.yaml").write_text(json.dumps({"strategies": written}))

    with pytest.MonkeyPatch.context() as patch:
        put_tables(home / "lake")
        named = {
            "LAKE": home / "lake", "FLEX_FOLDER": folder, "DAILY_START": MON,
            "STRATEGIES_FILE": home / "strategies.yaml", "GATEWAY_PORT": 1,
            "SEC_TYPES": "OPT,FOP,STK,FUT,BOND,CFD,CRYPTO",
        }  # fmt: skip
        for name, value in named.items():
            patch.setenv(f"POSITION_SYNC_{name}", str(value))
        patch.setenv("DAGSTER_HOME", str(home))
        defs = PositionSyncComponent().definitions(load_settings())
        with dg.DagsterInstance.ephemeral(tempdir=str(home)) as instance:
            for names in STEPS:
                keys = {dg.AssetKey(name) for name in names}
                job = defs.resolve_implicit_global_asset_job_def()
                job = job.get_subset(asset_selection=keys)
                tags = partition_range(f"{MON}", f"{WED}") if "books" in names else {}
                assert job.execute_in_process(instance=instance, tags=tags).success

        campaigns = json_of("results", "--list")
        first_ids = [row["campaign_id"] for row in campaigns[:3]]
        tables = MoneyLake(home / "lake").derived_tables
        [books] = (table.rows() for table in tables if table.spec.name == BOOKS.name)
        return Answers(
            campaigns=campaigns,
            fills={campaign_id: json_of("campaign", campaign_id) for campaign_id in first_ids},
            groups=json_of("results"),
            lots=[*csv.DictReader(run("export", "lots").splitlines())],
            books=books.sort("session_date").to_dicts(),
        )


def of_account(rows: list[dict[str, Any]], account: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["account"][:4] == account]


@pytest.mark.parametrize("name", CASES)
def test_campaigns_are_known_by_their_numbers_or_by_why_not(answers, name):
    case = CASES[name]
    account = ACCOUNT_OF[name]
    profits: defaultdict[str, list[Any]] = defaultdict(list)
    for row in of_account(answers.campaigns, account):
        strategy = row["strategy_id"].removesuffix(f"-{account}")
        profits[strategy].append(row["profit_unknown"] or row["profit"])

    told = {}
    for strategy, values in profits.items():
        told[strategy] = values[0] if isinstance(values[0], str) else sum(values)
    assert told == {name: _near(profit, 0.005) for name, profit in case.campaigns.items()}
    assert sum(row["rolls"] for row in of_account(answers.campaigns, account)) == case.rolls


def _near(amount: float | str | None, tolerance: float) -> Any:
    """Return what an amount by hand is compared with; a text and None as they are."""
    return pytest.approx(amount, abs=tolerance) if isinstance(amount, float) else amount


def _amount(text: str) -> float | None:
    return float(text) if text else None


@pytest.mark.parametrize("name", CASES)
def test_lots_are_known_by_their_numbers_or_say_why_not(answers, name):
    rows = of_account(answers.lots, ACCOUNT_OF[name])
    assert all(bool(row["why_unknown"]) or row["cost"] or row["proceeds"] for row in rows)
    told = []
    for row in rows:
        amounts = [_amount(row[column]) for column in ("cost", "proceeds", "profit")]
        told.append((int(row["conid"]), float(row["quantity"]), row["opened"], *amounts))

    by_hand = []
    for lot in sorted(CASES[name].lots, key=attrgetter("conid", "quantity")):
        quantity = pytest.approx(lot.quantity, abs=1e-9)
        opened = f"{lot.opened}" if lot.opened else ""
        amounts = [_near(amount, 0.001) for amount in (lot.cost, lot.proceeds, lot.profit)]
        by_hand.append((lot.conid, quantity, opened, *amounts))
    assert sorted(told, key=itemgetter(0, 1)) == by_hand


def test_results_say_how_many_profits_are_not_known_and_why(answers):
    unknown = {row["group"]: row for row in answers.groups if row["unknown"]}
    account = ACCOUNT_OF["what is taken, and nothing came"]
    row = unknown[f"s-a-{account}"]
    assert (row["number"], row["unknown"], row["profit"]) == (1, 1, None)
    assert row["why_unknown"].endswith("what AAA became by a corporate action is not known")


def test_the_notional_of_a_cfd_is_in_no_effect_of_rates(answers):
    """Tuesday: 100 EUR at 1.2. Wednesday: what is open, 100 EUR, is worth 0.1 more each."""
    tuesday, wednesday = of_account(answers.books, OF_CFD)
    columns = ("profit", "rates", "difference")
    assert [tuesday[name] for name in columns] == pytest.approx([120, 0, 0], abs=1e-6)
    assert [wednesday[name] for name in columns] == pytest.approx([0, 10, 0], abs=1e-6)
