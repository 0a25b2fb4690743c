"""A name that nobody knows is an error with the nearest ones, and no answer without anything."""

from dataclasses import replace

import pytest

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.money.reports.known_names import (
    KnownNames,
    UnknownNameError,
    UnknownStrategyError,
    nearest,
)
from tests.support.legs import leg
from tests.support.money_rows import NOW, book_of, row

NAMES = book_of(
    [row(1, account="U1", symbol="SPY")],
    [leg(2, "iron-condor", symbol="QQQ")],
    accounts=(AccountSummary(account="U2", timestamp=NOW),),
    served=frozenset({"U3"}),
    unresolved=frozenset({"new"}),
).names


def test_an_account_of_the_login_and_the_symbol_of_a_leg_are_known_without_a_holding():
    for account in ("U1", "U2", "U3"):
        NAMES.require(account=account)
    for underlying in ("SPY", "qqq"):
        NAMES.require(underlying=underlying)
    for strategy in ("iron-condor", "UNATTRIBUTED"):
        NAMES.require(strategy=strategy)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"account": "U12"}, UnknownNameError, "no account 'U12'. The nearest are: U"),
        ({"account": ""}, UnknownNameError, "no account ''"),
        ({"underlying": "QQ"}, UnknownNameError, "no underlying 'QQ'. The nearest are: QQQ, SPY."),
        ({"strategy": "Iron-condr"}, UnknownStrategyError, "The nearest are: iron-condor, "),
        ({"strategy": "spy"}, UnknownStrategyError, "strategy 'spy': SPY is an underlying. The n"),
        ({"strategy": "odd"}, UnknownStrategyError, "`position-sync strategies list` has all."),
        ({"strategy": "new"}, UnknownStrategyError, "'new' has its contract yet"),
        ({"strategy": "x" * 10**6}, UnknownStrategyError, "(1,000,002 characters)"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_ones(given, error, said):
    with pytest.raises(error) as refused:
        NAMES.require(**given)
    assert said in str(refused.value)


def test_a_strategy_that_ended_is_known_only_where_the_past_is_asked_for():
    with pytest.raises(UnknownStrategyError, match="no active strategy 'old'"):
        NAMES.require(strategy="old")
    with_past = replace(NAMES, ended=frozenset({"old"}))
    with_past.require(strategy="old")
    with pytest.raises(UnknownStrategyError, match="no strategy 'odd'"):
        with_past.require(strategy="odd")


def test_of_many_names_the_nearest_few_are_listed_and_without_any_that_is_said():
    assert nearest("leg-77", [f"leg-{number}" for number in range(200)]).count(",") == 4
    with pytest.raises(UnknownNameError, match="None is known yet"):
        KnownNames().require(account="U1")
