"""Which tests `make test` leaves out, and why: the second tier.

The first tier shows every promise once; `make test-all` runs both. A test is in
the second one because it varies, starts or plays what the first tier shows already, never because
it is slow alone. CONTRIBUTING.md lists mutations and the test of the first tier that notices each.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import pytest


class SecondTier(StrEnum):
    """Why a test is in the second tier; the name of its marker."""

    VARIATION = "variation"
    PROGRAM = "program"
    CAMPAIGN = "campaign"


@dataclass(frozen=True, slots=True)
class Row:
    """Tests of the second tier.

    Attributes:
        tests: A regular expression that the beginning of their node ids matches.
        why: The marker.
        reason: What they add, and where the first tier has the same.
    """

    tests: str
    why: SecondTier
    reason: str


V, P, C = SecondTier
ROWS: tuple[Row, ...] = (
    Row(r"tests/chaos/", C, "random kills; each kind of kill is a test of the first tier"),
    Row(r"tests/\S+\[(.*-)?store(-.*)?\]", V, "in an object store; on a disk first"),
    Row(r"tests/\S+\[(.*-)?postgres(-.*)?\]", V, "in Postgres; in tables first"),
    Row(r"tests/acceptance/test_(dev|hosts|logins)\.py", P, "other ways to start the demo's parts"),
    Row(r"tests/acceptance/test_clients\.py", P,
        "pyright, a validator, generated clients; mypy, and the shapes themselves first"),
    Row(r"tests/acceptance/test_backup\.py", P, "a Postgres, copied as deploy.md prints it"),
    Row(r"tests/acceptance/test_gates\.py::\S+\[(?!lint|format|lock)", P,
        "gates that import, build or install everything; those of a second first"),
    Row(r"tests/acceptance/test_stopping\.py::test_(by_itself|a_verdict|a_closed)", P,
        "other ends, and verdicts; its rules are in tests/unit/test_demo.py"),
    Row(r"tests/integration/sync/test_fuzz(ed_lines)?\.py", C, "a gateway that sends anything"),
    Row(r"tests/integration/sync/stream/test_large_books\.py", V, "larger books"),
    Row(r"tests/integration/web/test_description\.py", V,
        "queries that a program makes up; a wrong one of each kind first"),
    Row(r"tests/integration/web/test_large_book\.py", V, "a larger book in the browser"),
    Row(r"tests/integration/defs/test_damaged_tables\.py::test_no_check\S+\["
        r"(?!position_queue)", V, "other tables; the requests first"),
    Row(r"tests/integration/defs/test_drain\.py::test_a_daemon_killed\S+\[[08]\]", V,
        "killed at other events; after the first one first"),
    Row(r"tests/unit/money/strategies/test_proposals\.py::test_two_thousand", V, "a large book"),
    Row(r"tests/integration/sync/test_store_outages\.py", V, "outages of an object store"),
    Row(r"tests/integration/lake/test_pairs_of_changes\.py", V,
        "one change inside another; each change alone first"),
    Row(r"tests/integration/money/test_forced_pairs\.py::test_every_pair", V,
        "each flow inside each other one, before each step; a pair of each kind first"),
    Row(r"tests/integration/money/test_forced_pairs\.py::test_a_process", P,
        "processes that are stopped; in one process first"),
    Row(r"tests/integration/lake/test_programs_together\.py", P,
        "drains, owners and upkeep at work; each pair of changes first"),
    Row(r"tests/integration/lake/test_queue_(races\.py|rows\.py::test_forty)", V,
        "larger races and lists"),
    Row(r"tests/integration/lake/storage/test_maintenance\.py::test_no_table_grows", C, "a day"),
    Row(r"tests/integration/lake/storage/test_full_disk\.py::\S+\[(?!mark\])", V,
        "other steps on a full disk"),
    Row(r"tests/integration/processes/test_rehearsal\.py::test_(one_planted|what_is_planted|what_was|"
        r"nothing_of_a_rec)", V, "other gateways, each heard and played again; all are told apart "
        "in tests/unit/processes/heard/test_wire.py first"),
    Row(r"tests/integration/processes/test_rehearsal\.py::test_an_interrupted", P,
        "the command, stopped; what it does in this process first"),
    Row(r"tests/integration/cli/test_stopping\.py", P,
        "signals at every moment of every command; the demo is stopped in tests/acceptance"),
    Row(r"tests/integration/money/defs/test_happenings\.py::\S+twenty_kills", C,
        "twenty kills of a program; a kill after each tick first"),
    Row(r"tests/integration/money/test_logins\.py::\S+\[(hung|storm)\]", V, "other troubles"),
    Row(r"tests/integration/money/defs/test_statements_in_four_currencies\.py::\S+command", P,
        "Dagster's own command; the same in this process first"),
    Row(r"tests/integration/money/defs/test_own_tables\.py::test_the_commands", P,
        "Dagster's own command; the same in a tick first"),
    Row(r"tests/integration/lake/\S+(_after_many_days|::test_weeks_of)", C, "many days"),
    Row(r"tests/integration/lake/test_broker_positions\.py::test_many_changes", C, "many changes"),
    Row(r"tests/integration/money/test_model_greeks\.py::\S+\[(zeros|False)\]", V,
        "zeros in place of nothing, terms of another change; one of each first"),
    Row(r"tests/integration/sync/stream/test_account_values\.py::\S+"
        r"\[(unset|refused|restored_data_kept)\]", V, "other ways in which profits do not come"),
    Row(r"tests/integration/sync/stream/test_accounts\.py::.+\[two accounts\]", V,
        "two accounts; an adviser with five first"),
    Row(r"tests/integration/sync/stream/test_followed_holdings\.py::test_a_message\S+"
        r"\[(closed|other)\]", V, "other messages that cannot count; one that is unset first"),
    Row(r"tests/integration/sync/stream/test_service\.py::test_a_stream_of_an_older\S+"
        r"\[active_strategies\]", V, "another table that is migrated; the ledger first"),
    Row(r"tests/integration/money/test_incremental_causes\.py::\S+\[[0-2]\]", V,
        "other random histories; one first"),
    Row(r"tests/integration/money/test_delivery\.py::test_a_receiver_that_cannot_be_reached\S+"
        r"\[(slack|json|nonsense)", V, "other receivers; by mail and without a scheme first"),
    Row(r"tests/unit/money/past/test_causes_of_histories\.py", C, "random histories of closes"),
    Row(r"tests/integration/money/test_ledger_world\.py::(\S+\[[1-5]\d\]|"
        r"test_they_are_the_same\S+\[0\]|test_what_is_gone\S+\[[23]\])", V,
        "more worlds beside the ledger; one or two first"),
    Row(r"tests/unit/money/profit/test_bridge\.py::\S+\[10000\]", V, "more random days; 300 first"),
    Row(r"tests/integration/defs/test_drain\.py::test_a_cursor\S+\[(?!.*unowned)", V,
        "other cursors that cannot be read; one that names a table first"),
    Row(r"tests/integration/defs/test_drain\.py::test_a_drain_does_not_wait\S+\[strategy", V,
        "another part that takes long; the scenarios first"),
    Row(r"tests/integration/defs/assets/test_daily_positions\.py::test_a_ledger_that_begins\S+"
        r"\[(True-XNYS|False-XTKS)", V, "other pairs of a calendar and an owner; two first"),
    Row(r"tests/integration/lake/test_crashes\.py::test_maintenance_killed\S+"
        r"\[(after the (merge|checkpoint|vacuum)|before the checkpoint)", V,
        "other steps; before and in the merge, and after the cleanup first"),
    Row(r"tests/integration/lake/test_crashes\.py::test_a_drain_killed\S+"
        r"\[disk-(before the claim|the claim's|after the (value|mark))", V,
        "other steps; around the ledger and the mark first"),
    Row(r"tests/integration/lake/test_durability\.py::test_an?_(torn|entry)\S+"
        r"\[(insert_many|claim|fail)\]", V, "other commits; an insert and a mark first"),
    Row(r"tests/integration/lake/test_ledger_reads\.py::test_the_newest_rows\S+\[disk-1\]", V,
        "another random history; one first"),
    Row(r"tests/integration/lake/test_object_store\.py::test_a_refusal\S+"
        r"\[(denied|bad signature|region)\]", V, "other refusals; an expired credential first"),
    Row(r"tests/integration/lake/test_object_store\.py::test_passing_faults\S+\[(slow|broken)", V,
        "other faults that pass; an answer that is cut off first"),
    Row(r"tests/integration/sync/stream/test_garbage\.py::test_half\S+\[(?!half)", V,
        "other lengths; half of one first"),
    Row(r"tests/integration/sync/stream/test_garbage\.py::test_a_message_that_cannot\S+"
        r"\[(text|short|unknown type)\]", V, "other messages; bytes and a short tick first"),
    Row(r"tests/integration/sync/stream/test_emptied_accounts\.py::test_an_empty_list\S+\[all\]", V,
        "all accounts; one of two first"),
    Row(r"tests/integration/sync/stream/test_outages\.py::test_an_odd_holding\S+\[(?!-5)", V,
        "other odd numbers of contracts; one first"),
    Row(r"tests/integration/money/defs/test_closures\.py::test_a_bill\S+\[(BOND|CASH)\]", V,
        "other types; a bill first"),
    Row(r"tests/unit/money/risk/test_hypothetical_book\.py::test_trades_change\S+"
        r"\[([5-9]|\d\d)\]", V, "other random trades; five first"),
    Row(r"tests/unit/money/risk/test_fifty_strategies\.py::test_a_strategy_has\S+\[(?!long call\]|"
        r"naked put\]|iron condor\]|broken wing\]|ratio spread\]|covered call\]|collar\]|box\]|"
        r"condor in euros\]|index in the morning\]|calendar with a dividend\]|diagonal\])", V,
        "other strategies; each kind of payoff first"),
    Row(r"tests/year/test_week\.py::\S+\[2026-12-22\]", C,
        "a session more, whose statement comes late; late ones first in `test_statements.py`"),
    Row(r"tests/unit/test_deploy\.py::test_each_part_of_the_helm", V,
        "names and types as Kubernetes' own models know them; what they say first"),
    Row(r"tests/unit/money/test_data_dictionary\.py::test_the_package_is_imported_without", P,
        "the package without docstrings; with them everywhere first"),
)  # fmt: skip


# One expression for all: there are thousands of tests.
LISTED = re.compile("|".join(f"(?P<row_{place}>{row.tests})" for place, row in enumerate(ROWS)))


def row_of(nodeid: str) -> Row | None:
    """Return the row of a test of the second tier; None: it is in the first one."""
    listed = LISTED.match(nodeid)
    return ROWS[int(listed.lastgroup.removeprefix("row_"))] if listed and listed.lastgroup else None


def mark(items: Iterable[pytest.Item]) -> None:
    """Mark the tests of the second tier."""
    for item in items:
        row = row_of(item.nodeid)
        if row is not None:
            item.add_marker(getattr(pytest.mark, row.why.value)(reason=row.reason))
