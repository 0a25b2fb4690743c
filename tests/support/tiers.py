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


# Each row: the expression, on lines from the margin, and then, indented, the marker and the reason.
_LISTED_ROWS = r"""
tests/integration/money/test_clock_ahead\.py::test_after_a_clock\S+\[year\]
    variation: a clock that was further ahead, beside a gateway; an hour first, and a year in
    the other tests of the file
tests/integration/money/test_profit\.py::test_what_goes_out_in_a_section\S+\[(all--42|a part-42)\]
    variation: other pairs of a side and a size; two first
tests/integration/money/test_statement_import\.py::test_a_statement_is_known\S+\[(2-twice|
2-its week|1-twice at other times|1-its week later)\]
    variation: other pairs of a statement and a number of files; each statement in one first
tests/chaos/
    campaign: random kills; each kind of kill is a test of the first tier
tests/\S+\[(.*-)?store(-.*)?\]
    variation: in an object store; on a disk first
tests/\S+\[(.*-)?postgres(-.*)?\]
    variation: in Postgres; in tables first
tests/acceptance/test_(dev|hosts|logins)\.py
    program: other ways to start the demo's parts
tests/acceptance/test_clients\.py
    program: pyright, a validator, generated clients; mypy, and the shapes themselves first
tests/acceptance/test_backup\.py
    program: a Postgres, copied as deploy.md prints it
tests/acceptance/test_gates\.py::\S+\[(?!lint|format|lock)
    program: gates that import, build or install everything; those of a second first
tests/acceptance/test_stopping\.py::test_(by_itself|a_verdict|a_closed)
    program: other ends, and verdicts; its rules are in tests/unit/test_demo.py
tests/integration/sync/test_fuzz(ed_lines)?\.py
    campaign: a gateway that sends anything
tests/integration/sync/stream/test_large_books\.py
    variation: larger books
tests/integration/web/test_description\.py
    variation: queries that a program makes up; a wrong one of each kind first
tests/integration/web/test_large_book\.py
    variation: a larger book in the browser
tests/integration/defs/test_damaged_tables\.py::test_no_check\S+\[(?!position_queue)
    variation: other tables; the requests first
tests/integration/defs/test_drain\.py::test_a_daemon_killed\S+\[[08]\]
    variation: killed at other events; after the first one first
tests/unit/money/strategies/test_proposals\.py::test_two_thousand
    variation: a large book
tests/integration/sync/test_store_outages\.py
    variation: outages of an object store
tests/integration/lake/test_pairs_of_changes\.py
    variation: one change inside another; each change alone first
tests/integration/money/test_forced_pairs\.py::test_every_pair
    variation: each flow inside each other one, before each step; a pair of each kind first
tests/integration/money/test_forced_pairs\.py::test_a_process
    program: processes that are stopped; in one process first
tests/integration/lake/test_programs_together\.py
    program: drains, owners and upkeep at work; each pair of changes first
tests/integration/lake/test_queue_(races\.py|rows\.py::test_forty)
    variation: larger races and lists
tests/integration/lake/storage/test_maintenance\.py::test_no_table_grows
    campaign: a day
tests/integration/lake/storage/test_full_disk\.py::\S+\[(?!mark\])
    variation: other steps on a full disk
tests/integration/processes/test_rehearsal\.py::test_(one_planted|what_is_planted|what_was|
nothing_of_a_rec)
    variation: other gateways, each heard and played again; all are told apart in
    tests/unit/processes/heard/test_wire.py first
tests/integration/processes/test_rehearsal\.py::test_an_interrupted
    program: the command, stopped; what it does in this process first
tests/integration/cli/test_stopping\.py
    program: signals at every moment of every command; the demo is stopped in tests/acceptance
tests/integration/money/defs/test_happenings\.py::\S+twenty_kills
    campaign: twenty kills of a program; a kill after each tick first
tests/integration/money/test_logins\.py::\S+\[(hung|storm)\]
    variation: other troubles
tests/integration/money/defs/test_statements_in_four_currencies\.py::\S+command
    program: Dagster's own command; the same in this process first
tests/integration/money/defs/test_own_tables\.py::test_the_commands
    program: Dagster's own command; the same in a tick first
tests/integration/lake/\S+(_after_many_days|::test_weeks_of)
    campaign: many days
tests/integration/lake/test_broker_positions\.py::test_many_changes
    campaign: many changes
tests/integration/money/test_model_greeks\.py::\S+\[(zeros|False)\]
    variation: zeros in place of nothing, terms of another change; one of each first
tests/integration/sync/stream/test_account_values\.py::\S+\[(unset|refused|restored_data_kept)\]
    variation: other ways in which profits do not come
tests/integration/sync/stream/test_accounts\.py::.+\[two accounts\]
    variation: two accounts; an adviser with five first
tests/integration/sync/stream/test_followed_holdings\.py::test_a_message\S+\[(closed|other)\]
    variation: other messages that cannot count; one that is unset first
tests/integration/sync/stream/test_service\.py::test_a_stream_of_an_older\S+\[active_strategies\]
    variation: another table that is migrated; the ledger first
tests/integration/money/test_incremental_causes\.py::\S+\[[0-2]\]
    variation: other random histories; one first
tests/integration/money/test_delivery\.py::test_a_receiver_that_cannot_be_reached\S+\[(slack|json|
nonsense)
    variation: other receivers; by mail and without a scheme first
tests/unit/money/past/test_causes_of_histories\.py
    campaign: random histories of closes
tests/integration/money/test_ledger_world\.py::(\S+\[(0|[1-5]\d)\]|
test_what_is_gone\S+\[[23]\])
    variation: more worlds beside the ledger; one, in which each difference is, first
tests/unit/money/profit/test_bridge\.py::\S+\[10000\]
    variation: more random days; 300 first
tests/integration/defs/test_drain\.py::test_a_cursor\S+\[(?!.*unowned)
    variation: other cursors that cannot be read; one that names a table first
tests/integration/defs/test_drain\.py::test_a_drain_does_not_wait\S+\[strategy
    variation: another part that takes long; the scenarios first
tests/integration/defs/assets/test_daily_positions\.py::test_a_ledger_that_begins\S+\[(True-XNYS|
False-XTKS)
    variation: other pairs of a calendar and an owner; two first
tests/integration/lake/test_crashes\.py::test_maintenance_killed\S+\[(after the (merge|checkpoint|
vacuum)|before the checkpoint)
    variation: other steps; before and in the merge, and after the cleanup first
tests/integration/lake/test_crashes\.py::test_a_drain_killed\S+\[disk-(before the claim|
the claim's|after the (value|mark))
    variation: other steps; around the ledger and the mark first
tests/integration/lake/test_durability\.py::test_an?_(torn|entry)\S+\[(insert_many|claim|fail)\]
    variation: other commits; an insert and a mark first
tests/integration/lake/test_ledger_reads\.py::test_the_newest_rows\S+\[disk-1\]
    variation: another random history; one first
tests/integration/lake/test_object_store\.py::test_a_refusal\S+\[(denied|bad signature|region)\]
    variation: other refusals; an expired credential first
tests/integration/lake/test_object_store\.py::test_passing_faults\S+\[(slow|broken)
    variation: other faults that pass; an answer that is cut off first
tests/integration/sync/stream/test_garbage\.py::test_half\S+\[(?!half)
    variation: other lengths; half of one first
tests/integration/sync/stream/test_garbage\.py::test_a_message_that_cannot\S+\[(text|short|
unknown type)\]
    variation: other messages; bytes and a short tick first
tests/integration/sync/stream/test_emptied_accounts\.py::test_an_empty_list\S+\[all\]
    variation: all accounts; one of two first
tests/integration/sync/stream/test_outages\.py::test_an_odd_holding\S+\[(?!-5)
    variation: other odd numbers of contracts; one first
tests/integration/money/defs/test_closures\.py::test_a_bill\S+\[(BOND|CASH)\]
    variation: other types; a bill first
tests/unit/money/risk/test_hypothetical_book\.py::test_trades_change\S+\[([5-9]|\d\d)\]
    variation: other random trades; five first
tests/unit/money/risk/test_fifty_strategies\.py::test_a_strategy_has\S+\[(?!long call\]|
naked put\]|iron condor\]|broken wing\]|ratio spread\]|covered call\]|collar\]|box\]|
condor in euros\]|index in the morning\]|calendar with a dividend\]|diagonal\])
    variation: other strategies; each kind of payoff first
tests/year/test_week\.py::\S+\[2026-12-22\]
    campaign: a session more, whose statement comes late; late ones first in
    `test_statements.py`
tests/unit/test_deploy\.py::test_each_part_of_the_helm
    variation: names and types as Kubernetes' own models know them; what they say first
tests/unit/money/test_data_dictionary\.py::test_the_package_is_imported_without
    program: the package without docstrings; with them everywhere first
tests/integration/web/test_pages\.py::test_axe_finds_nothing_on_the_three\S+\[dark\]
    variation: in the dark; all three in the light, and the money page with a leg in the dark first
tests/integration/web/test_pages\.py::test_no_page_is_wider\S+\[size0\]
    variation: on a tablet; on a phone first
tests/integration/web/test_turns\.py::test_large_questions\S+\[figures of the past\]
    variation: another question about past moments; their feed first
tests/integration/cli/test_propose\.py::test_accepted_proposals\S+\[chosen2\]
    variation: all of them; `test_all_leaves_out_single_legs` chooses all first
ib_gateway_simulator/tests/integration/test_program\.py::test_it_prints\S+\[15\]
    variation: another signal; an interrupt first
tests/integration/defs/test_stream\.py::test_an_error_of_the_stream\S+\[LeaseLostError\]
    variation: another error; that of an owned login first
"""


def read_rows(text: str) -> tuple[Row, ...]:
    """Read rows of the second tier."""
    rows = []
    for expression, indented in re.findall(r"((?:^\S.*\n)+)((?:^ .*\n)+)", text, re.MULTILINE):
        why, _, reason = " ".join(indented.split()).partition(": ")
        tests = expression.replace("\n", "")
        rows.append(Row(tests, SecondTier(why), reason))

    return tuple(rows)


ROWS = read_rows(_LISTED_ROWS)


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
