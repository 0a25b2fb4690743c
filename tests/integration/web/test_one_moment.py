"""All that is asked at one moment is of one look at the tables, also while everything moves."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.exchange_time import exchange_date
from position_sync_dagster.domain.holding import BrokerPosition
from position_sync_dagster.domain.position_update import PositionUpdate, Source, ValueOrigin
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.settings import Settings
from position_sync_dagster.web import api
from position_sync_dagster.web.served_figures import PageFigures, parts_of
from tests.integration.web.test_figures import account_of, row
from tests.support.extent import examples
from tests.support.holdings import make_holding
from tests.support.legs import leg

FAR = exchange_date(utc_now()) + timedelta(days=60)
TERMS = dict(
    delta=-0.5, gamma=0.01, theta=-0.1, vega=0.3, implied_vol=0.2,
    underlying_price=600.0, expiry=FAR, value_source=ValueOrigin.PNL_SINGLE,
)  # fmt: skip
# Each fifth move is one of the account's own number too.
LOOKS = examples(48)


def streamed(conid: int, at: datetime, profit: float) -> PositionUpdate:
    id_ = f"row-{conid}-{at:%H%M%S%f}"
    return row(conid, timestamp=at, value_time=at, daily_pnl=profit, update_id=id_, **TERMS)


def queued(conid: int, at: datetime, profit: float) -> PositionUpdate:
    id_ = f"row-{conid}-{at:%H%M%S%f}"
    values = {**TERMS, "source": Source.QUEUE, "update_id": id_}
    return row(conid, timestamp=at, value_time=at, daily_pnl=profit, **values)


def published(conid: int, at: datetime, profit: float) -> BrokerPosition:
    """Return a queued holding whose value the owner of the login published after its row."""
    return make_holding(
        conid, at, position=-2.0, account="U1", gateway_id="gate", market_value=-310.0,
        daily_pnl=profit, unrealized_pnl=1.0, value_source=ValueOrigin.PNL_SINGLE,
    )  # fmt: skip


class Market:
    """Gives each leg another profit; the account's own number comes seldom."""

    def __init__(self, settings: Settings) -> None:
        self.now = utc_now() - timedelta(minutes=10)
        self.gateway_id = settings.gateway_id
        self.lake = MoneyLake(settings.lake, fsync=False, clock=lambda: self.now)
        self.moves = 0
        legs = [leg(1, "a", quantity=-2.0), leg(2, "b", quantity=-2.0)]
        self.lake.registry.sync.add_many(legs)

    def move(self, profit: float, after_s: float = 0.4) -> datetime:
        """Return the moment after which all have moved."""
        self.now += timedelta(seconds=after_s)
        at = self.now
        rows = [streamed(1, at, profit), streamed(2, at, -3.0 * profit)]
        if not self.moves:
            rows.append(queued(3, at - timedelta(seconds=30), 2.0))
        self.lake.updates.sync.append(rows)
        holding = published(3, at, profit / 2)
        self.lake.broker_positions.replace(self.gateway_id, [holding])
        if self.moves % 5 == 0:
            summary = account_of(at, profit, -3.0 * profit, profit / 2)
            self.lake.account_values.append([summary])
        self.moves += 1
        return at


@pytest.fixture
def market(settings) -> Market:
    return Market(settings)


@pytest.fixture
def source(settings) -> PageFigures:
    return PageFigures(settings)


def open_sums(source: PageFigures, now: datetime) -> dict[str, tuple[datetime, float]]:
    """Return what each answer says that is open has earned today, and of which moment."""
    header = api.ask(source, "header", now)
    (account,) = header["accounts"]
    today = account["today"]
    parts = today["open"] + today["closed"] + today["cash"] + today["unexplained"]
    assert today["account"] == pytest.approx(parts)
    sums = api.ask(source, "strategies", now)
    (total,) = sums["totals"]
    why = api.ask(source, "why", now)
    return {
        "header": (moment_of(header), today["open"]),
        "total": (moment_of(sums), total["today"]),
        "losses": (moment_of(sums), sum(row["today"] for row in sums["strategies"])),
        "why": (why["at"], sum(row.profit for row in why["rows"])),
    }


def moment_of(answer: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(answer["at"])


def test_header_total_losses_and_why_are_of_one_look_while_all_moves(source, market):
    looks = set()
    for number in range(LOOKS):
        now = market.move(10.0 + number)
        answers = open_sums(source, now)
        assert len({at for at, _sum in answers.values()}) == 1, answers
        sums = [profit for _at, profit in answers.values()]
        assert sums == pytest.approx([sums[0]] * len(sums)), answers
        looks.add(answers["header"])
    assert len(looks) > LOOKS / 4, "it moved"


def test_scenarios_and_why_of_the_page_are_of_the_figures_that_they_stand_beside(source, market):
    for number in range(3):
        now = market.move(10.0 + number, after_s=1.0)
        figures = source.figures(now)
        page = source._moved(figures)
        assert page["scenarios"]["at"] == page["why"]["at"] == figures.at
        (total,) = page["why"]["totals"]
        assert total.daily_pnl == pytest.approx(sum(row.profit for row in page["why"]["rows"]))
        assert api.ask(source, "scenarios", now)["at"] == figures.at


def test_what_moved_after_the_accounts_own_number_is_named_in_what_is_not_explained(source, market):
    first = market.move(10.0)
    (account,) = api.ask(source, "header", first)["accounts"]
    assert account["moved"] == 0.0
    assert account["today"]["unexplained"] == pytest.approx(-160.25 + 15.0)

    now = market.move(20.0, after_s=2.0)
    (account,) = api.ask(source, "header", now)["accounts"]
    assert account["today"]["open"] == -30.0
    assert account["moved"] == 15.0
    assert account["moved_since"] == first.isoformat()


VALUES = ("market_value", "market_price", "unrealized_pnl", "daily_pnl", "delta", "dollar_delta")


def test_each_value_of_a_past_moment_is_that_which_was_shown_or_is_marked(source, market):
    at = market.move(10.0)
    shown = parts_of(source.figures(at)).rows_by_key("key", named=True, unique=True)
    market.move(50.0, after_s=60.0)

    rows, figures = source.played_back(at, market.now).read(market.now)
    kept = {}
    for part in rows.iter_rows(named=True):
        before = shown[part["key"]]
        kept[part["conid"]] = part["kept"]
        differing = [name for name in VALUES if part[name] != before[name]]
        assert part["kept"] != bool(differing), (part["conid"], differing)
    assert kept == {1: True, 2: True, 3: False}
    assert figures["missing"][0].startswith("≈ marks 1 of 3 legs, and the sums with one: ")
    assert "age_s" in figures["not_kept"]


SUMS = ("market_value", "unrealized", "today", "dollar_delta", "theta")
TABLES = ("strategies", "underlyings", "expiries", "totals")


def test_each_sum_of_a_past_moment_is_that_which_was_shown_or_says_how_many_legs_are_not(
    source, market
):
    at = market.move(10.0)
    shown = source.figures(at).to_dict()
    market.move(50.0, after_s=60.0)

    asked = at.isoformat()
    played_back = source.played_back(at, market.now).figures(market.now).to_dict()
    counts = {}
    for table in TABLES:
        for then, before in zip(played_back[table], shown[table], strict=True):
            differs = [name for name in SUMS if then[name] != before[name]]
            assert bool(then["not_kept"]) == bool(differs), (table, then, differs)
            counts[table, then.get("strategy")] = then["not_kept"]
    # One of three legs is queued: it is in no strategy, and in each other sum.
    assert counts.pop(("strategies", "a")) == counts.pop(("strategies", "b")) == 0
    assert set(counts.values()) == {1}

    [account] = played_back["accounts"]
    assert account["not_kept"] == 1
    assert account["today"]["open"] != shown["accounts"][0]["today"]["open"]
    for route in ("what-if", "why"):
        [why] = api.ask(source, route, market.now, at=asked)["not_current"]
        assert why.startswith("≈ marks 1 of 3 legs")


def test_a_past_moment_has_its_own_reasons_and_legs(source, market):
    at = market.move(10.0)
    now = market.move(50.0, after_s=60.0)
    asked = at.isoformat()
    _rows, figures = source.played_back(at, now).read(now)
    assert figures["why"]["at"] == figures["scenarios"]["at"] == asked
    assert sum(row["profit"] for row in figures["why"]["rows"]) == -20.0 + 2.0

    leg_then = api.ask(source, "leg", now, account="U1", conid=1, at=asked)
    assert [value["daily_pnl"] for value in leg_then["values"]] == [10.0]
    assert leg_then["position"]["today"] == 10.0
    (total,) = api.ask(source, "strategies", now, at=asked)["totals"]
    assert total["today"] == -18.0
    assert api.ask(source, "header", now, at=asked)["accounts"][0]["today"]["open"] == -18.0
