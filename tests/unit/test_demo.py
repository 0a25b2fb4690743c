"""The demo: its acceptance test over rows made by hand, its day and its history."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any
from unittest.mock import MagicMock, Mock

import polars as pl
import pytest
import yaml

from ib_gateway_simulator import SimulatedGateway
from ib_gateway_simulator.books.dates import dated
from ib_gateway_simulator.books.loader import BOOKS, load_book
from ib_gateway_simulator.control.actions import perform
from ib_gateway_simulator.control.scenario import load_scenario
from ib_gateway_simulator.market.market import Market
from ib_gateway_simulator.protocol.codes import Code
from position_sync_dagster import demo
from position_sync_dagster.demo import STATED_S, expect_paths
from position_sync_dagster.domain.position_update import Source
from position_sync_dagster.money.campaigns.campaign_days import read_days_of
from position_sync_dagster.money.campaigns.closed_campaigns import CampaignBook
from position_sync_dagster.money.campaigns.open_campaigns import read_open_campaigns
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past.owned_parts import PostingBook
from position_sync_dagster.processes.home import Home, HomeError
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.confirmations import CONFIRMED
from position_sync_dagster.sync.exchange_days import exchange_of
from tests.support.booked_days import Books
from tests.support.demo_book import strategies_text
from tests.support.legs import leg

START = datetime(2026, 1, 2, 15, 0, tzinfo=UTC)
AT = datetime(2026, 3, 9, 14, 30, tzinfo=UTC)
ACCOUNT = "DUSIM0001"
HELD = frozenset((ACCOUNT, conid) for conid in range(1, 11))


def row(conid, source, *, seconds=5.0, confirmed=None):
    at = START + timedelta(seconds=seconds)
    return (ACCOUNT, conid, 1.0, source.value, at, confirmed)


def frame(rows):
    schema = {"account": pl.String, "conid": pl.Int64, "position": pl.Float64, "source": pl.String}
    schema |= dict.fromkeys(("timestamp", CONFIRMED), pl.Datetime("us", "UTC"))
    return pl.DataFrame(rows, schema, orient="row")


def current(rows):
    return demo.current_paths(frame(rows), since=START)


EXPECTED = expect_paths(HELD, [leg(1), leg(2), leg(2, "b"), leg(99)])
ROWS = [row(c, Source.STREAM if c <= 2 else Source.QUEUE) for c in range(1, 11)]


def missed(rows=ROWS, *, expected=EXPECTED, lines=3, orders=(), **changes):
    arguments = {"complete_after_s": 20.0, "limit_s": 60.0, "underlyings": 1} | changes
    counts = {"peak_lines": lines, "orders_received": orders}
    results = demo.evaluate(expected, current(rows), counts=counts, **arguments)
    return [result.name.strip() for result in results if not result.met]


def test_a_leg_streams_while_a_strategy_has_it_and_it_is_held():
    streamed = [conid for (_, conid), path in EXPECTED.items() if path is Source.STREAM]
    assert len(EXPECTED) == 10
    assert sorted(streamed) == [1, 2]
    ended = expect_paths(HELD, [leg(1).ended(START)])
    assert set(ended.values()) == {Source.QUEUE}


def test_one_line_serves_a_conid_in_two_accounts():
    twice = expect_paths({("A", 1), ("B", 1)}, [leg(1)])
    peak = "peak of market data lines"
    assert peak in missed([], expected=twice, lines=2, underlyings=0)
    assert peak not in missed([], expected=twice, lines=1, underlyings=0)


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (ROWS, []),
        ([*ROWS, row(50, Source.QUEUE)], []),  # it is not held
        ([*ROWS[:-1], row(10, Source.QUEUE, seconds=-1)], ["legs with a current row", "by QUEUE"]),
        ([row(1, Source.QUEUE), *ROWS[1:]], ["by STREAM"]),
    ],
)
def test_each_leg_needs_a_row_of_this_run_by_its_own_path(rows, names):
    assert missed(rows) == names
    assert demo.is_complete(EXPECTED, current(rows)) is not bool(names)


def test_each_other_figure_can_be_missed_alone():
    """The line of an underlying that is still to come is no miss."""
    assert missed(complete_after_s=61.0) == ["all current after"]
    assert missed(complete_after_s=None) == ["all current after"]
    peak = "peak of market data lines"
    assert [missed(lines=lines) for lines in (1, 2, 4)] == [[peak], [], [peak]]
    assert missed(orders=["BUY"]) == ["order messages at the broker"]


def test_a_row_of_an_earlier_run_counts_once_the_broker_has_confirmed_it():
    times = {3: START + timedelta(seconds=1), 4: START - timedelta(seconds=1)}
    old = [
        row(conid, Source.QUEUE, seconds=-600.0, confirmed=times.get(conid))
        for conid in range(3, 11)
    ]
    assert current(old) == {(ACCOUNT, 3): Source.QUEUE}


@pytest.fixture(scope="module")
def day():
    return load_scenario(BOOKS / "demo_day.yaml")


def held_by_strategy(sim):
    """Return what is held of the legs of each strategy, by its name."""
    quantities = {row["conid"]: row["quantity"] for row in sim.positions()}
    return {
        strategy["strategy_id"]: {
            leg["conid"]: quantities.get(leg["conid"], 0.0) for leg in strategy["legs"]
        }
        for strategy in yaml.safe_load(strategies_text(AT.date()))["strategies"]
    }


async def test_the_day_opens_rolls_and_closes_whole_strategies_and_ends_as_it_began(day):
    book = load_book("demo", AT.date())
    sim = SimulatedGateway(book, control_port=None, autostep=False, now=AT.timestamp)
    before = held_by_strategy(sim)
    sizes = []
    for event in [event for event in day if event.do == "order"]:
        await perform(sim, event.do, event.arguments)
        after = held_by_strategy(sim)
        [name] = [name for name in after if set(event.arguments.legs) <= set(after[name])]
        quantities = {abs(quantity) for quantity in after[name].values() if quantity}
        assert len(quantities) <= 1, "a strategy is torn"
        sizes.append((name, *quantities))

    assert sizes[:4] == [
        ("spy-weekly-condor", 3.0), ("nvda-earnings",), ("aapl-put-spread", 1.0),
        ("nvda-earnings", 5.0),
    ]  # fmt: skip
    assert held_by_strategy(sim) == before


def test_nothing_happens_while_the_demo_starts_and_no_leg_comes_or_goes_in_the_first_minute(day):
    assert min(event.at_s for event in day) >= 5  # after the first client
    held = {opening.conid: opening.quantity for opening in load_book("demo").openings}
    first_minute = [event.arguments for event in day if event.at_s <= 60]
    for order in first_minute:
        assert all(held[conid] * quantity > 0 for conid, quantity in order.legs.items())


async def test_an_expiry_an_assignment_and_a_roll_come_after_the_first_minute_and_leave_nothing(
    day,
):
    book = load_book("demo", AT.date())
    sim = SimulatedGateway(book, control_port=None, autostep=False, now=AT.timestamp)
    before = {row["conid"] for row in sim.positions() if row["quantity"]}
    own = [event for event in day if event.every_s is None]
    assert min(event.at_s for event in own) > 60
    for event in own:
        await perform(sim, event.do, event.arguments)
    assert {row["conid"] for row in sim.positions() if row["quantity"]} == before
    times = {event.do: event.at_s for event in own}
    listed = next(one for one in own if one.do == "list_option")
    assert {"assign", "roll"} <= times.keys()
    assert listed.at_s + listed.arguments.ends_in_s < times["expire"] < STATED_S


def test_each_outage_ends_after_some_seconds_and_the_first_minutes_have_one(day):
    lost, back = (event for event in day if event.do == "connectivity")
    taken, given_back = (event for event in day if event.do == "permissions")
    assert lost.at_s < 300
    assert taken.arguments.code == Code.COMPETING_SESSION
    assert given_back.at_s > taken.at_s
    assert 2 < back.at_s - lost.at_s < 15
    assert lost.every_s == back.every_s


@pytest.mark.parametrize(
    ("now", "last"),
    [
        ("2026-11-20T14:00:00", date(2026, 11, 19)),
        ("2026-11-21T04:59:00", date(2026, 11, 19)),
        ("2026-11-21T05:00:00", date(2026, 11, 20)),
        ("2026-11-26T23:00:00", date(2026, 11, 25)),
    ],
)
def test_the_last_session_is_the_last_one_before_today_in_new_york(now: str, last: date) -> None:
    past_sessions = demo.past_sessions("XNYS", datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert len(past_sessions) == 40
    assert demo.SESSIONS == 40
    assert past_sessions[-1] == last
    assert past_sessions == sorted(set(past_sessions))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Return a home before its first start, on a Saturday, and what was before it."""
    home = Home.at(tmp_path_factory.mktemp("home"))
    return home, demo.prepare_book(home, SATURDAY)


SATURDAY = datetime(2026, 11, 21, 15, tzinfo=UTC)


def test_the_simulator_counts_from_the_prices_of_the_last_close(prepared) -> None:
    home, history = prepared
    book = load_book(demo.book_of(home))
    running = Market(
        underlyings=book.underlyings, contracts=book.contracts, as_of=SATURDAY, rate=book.rate,
        seed=7, options=book.option_market, closed_days=demo.days_since_close(SATURDAY),
    )  # fmt: skip
    put = 911000003
    running.step()
    assert running.close_price(put) == history.closing.close_price(put)
    rows = demo.closing_rows(history, "gate")
    row = next(row for row in rows if row.conid == put)
    assert row.market_value == -200 * running.close_price(put)
    assert row.underlying_price == history.closing.at_close(put)[1]
    [opening] = [opening for opening in book.openings if opening.conid == put]
    assert opening.average_cost == row.average_cost == round(history.past.costs[put], 4)


def test_an_expiry_on_a_holiday_is_the_trading_day_before(prepared, tmp_path, monkeypatch) -> None:
    _home, history = prepared
    expiries = {contract.expiry for contract in history.book.contracts.values()}
    assert {"20261127", "20261204", "20261218", "20290119"} <= expiries
    monkeypatch.setattr(demo, "play_sessions", Mock(return_value=Mock(costs={})))
    at = datetime(2026, 12, 19, 15, tzinfo=UTC)
    december = demo.prepare_book(Home.at(tmp_path), at).book
    assert "20261224" in {contract.expiry for contract in december.contracts.values()}


def test_the_past_of_the_strategies_is_in_the_lake_with_their_campaigns(prepared) -> None:
    home, history = prepared
    home.prepare()
    demo.import_strategies(home.lake, demo.strategies_of(home), history.past.legs)
    settings = Settings(lake=str(home.lake), flex_folder=home.path / "flex")
    demo.write_closes(settings, history)
    demo.write_statements(settings, history)

    campaigns = CampaignBook(MoneyLake.of(settings)).rows()
    assert len(campaigns) == 25
    assert Counter(campaign.strategy_id for campaign in campaigns) == {
        "spy-weekly-condor": 6, "aapl-short-put": 4, "qqq-condor": 3, "aapl-put-spread": 3,
        "nvda-earnings": 3, "spy-calendar": 2, "msft-diagonal": 2, "qqq-diagonal": 2,
    }  # fmt: skip
    assert {campaign.ended for campaign in campaigns} >= {"closed", "expired"}
    assert len({campaign.kind for campaign in campaigns}) >= 8
    assert None not in {campaign.kind for campaign in campaigns}
    profits: list[Any] = [campaign.profit for campaign in campaigns]
    assert min(profits) < 0 < max(profits)

    # Their money, counted from the entries of the back office alone.
    strategy_of = {leg.contract.conid: leg.strategy for leg in history.past.legs}
    brought: Counter[Any] = Counter()
    for books in history.past.books:
        for entry in books.entries:
            strategy = None
            if entry.kind:
                strategy = strategy_of.get(entry.security.conid)

            shares = entry.security.category == "STK"
            if strategy or shares:
                brought[strategy or "aapl-short-put"] += entry.proceeds - entry.commission
    of_strategies: Counter[Any] = Counter()
    for campaign in campaigns:
        of_strategies[campaign.strategy_id] += campaign.profit
    assert of_strategies == {name: pytest.approx(float(money)) for name, money in brought.items()}

    # Two that are open share a call: what each brought are the entries of its own order.
    lake = MoneyLake.of(settings)
    stated = {
        campaign.strategy_id: (campaign.kind, campaign.opened, campaign.brought)
        for campaign in read_open_campaigns(lake, PostingBook(lake).postings())
    }
    entries = [entry for books in history.past.books for entry in books.entries if entry.kind]
    for strategy, kind, own in (
        ("qqq-condor", "iron-condor", 912000009),
        ("qqq-diagonal", "diagonal", 912000036),
    ):
        [first] = [entry for entry in entries if entry.security.conid == own]
        of_order = [entry for entry in entries if entry.order == first.order]
        money = sum(entry.proceeds - entry.commission for entry in of_order)
        assert stated[strategy] == (kind, first.report_day, pytest.approx(float(money)))

    # The days of each add up to its profit, to the cent: only then it says how it stood.
    since = date(2026, 10, 14)
    late = [campaign for campaign in campaigns if campaign.opened >= since]
    last = max(campaign.closed for campaign in late)
    sessions = exchange_of(settings.calendar).trading_days(since, last)
    rows = pl.concat(Books(lake, settings, settings.flex_folder).explain(sessions).values())
    assert len(late) == 16
    for campaign in late:
        are_its = pl.col.session_date.is_between(campaign.opened, campaign.closed)
        of_days = rows.filter(are_its, strategy_id=campaign.strategy_id)
        assert of_days["profit"].sum() == pytest.approx(campaign.profit, abs=0.005)
    told = read_days_of(lake, settings.calendar, late)
    assert None not in {campaign.worst for campaign in told}


def test_a_home_whose_options_have_expired_says_to_start_a_new_one(tmp_path) -> None:
    home = Home.at(tmp_path)
    demo.book_of(home).write_text(dated((BOOKS / "demo.yaml").read_text(), date(2026, 3, 9)))
    demo.require_living_book(home, date(2026, 3, 13))
    with pytest.raises(HomeError, match=r"have expired.* Remove this folder"):
        demo.require_living_book(home, date(2026, 3, 14))
    demo.book_of(home).unlink()
    with pytest.raises(HomeError, match="an older version"):
        demo.require_living_book(home, date(2026, 3, 9))


@pytest.fixture
def demo_run(tmp_path) -> demo.DemoRun:
    """A demo whose tables and statements are in a folder of the test; none of its programs runs."""
    return demo.DemoRun(
        home=Mock(), settings=Settings(lake=str(tmp_path), flex_folder=tmp_path), is_first=True,
        since=START, ui_port=0, control_port=0, children=(),
    )  # fmt: skip


def test_the_statements_of_the_day_are_written_and_imported(
    monkeypatch, tmp_path, demo_run
) -> None:
    statements = {ACCOUNT: "<one/>", "DUSIM0002": "<other/>"}
    launched = []
    monkeypatch.setattr(demo_run, "ask", {"/statements": statements}.get)
    monkeypatch.setattr(demo, "launch", lambda _ui_port, job, _tags: launched.append(job))
    demo.state_the_day(demo_run)
    written = {file.name.split("-")[0]: file.read_text() for file in tmp_path.glob("*-*.xml")}
    assert written == statements
    assert launched == ["import_statements"]


def test_nothing_is_launched_while_another_program_has_the_port(monkeypatch, demo_run) -> None:
    monkeypatch.setattr(demo_run, "complete_after_s", 1.0)
    done: list[demo.DemoRun] = []
    deeds = [demo.Deed(0.0, "history", done.append)]
    for serves, left in ((False, 1), (True, 0)):
        monkeypatch.setattr(demo_run, "serves", lambda serves=serves: serves)
        demo.act_if_due(deeds, demo_run, Mock())
        assert len(deeds) == left
    assert done == [demo_run]


def test_a_run_whose_pages_were_never_served_misses_that_figure(monkeypatch, demo_run) -> None:
    monkeypatch.setattr(demo_run, "addresses", dict.fromkeys(("ui", "control", "logs"), "").copy)
    monkeypatch.setattr(demo_run, "acceptance", lambda *, limit_s: ())
    monkeypatch.setattr(demo_run, "read", lambda: None)
    for serves in (False, True):
        monkeypatch.setattr(demo_run, "serves", lambda serves=serves: serves)
        monkeypatch.setattr(demo, "has_runs", lambda _ui_port: False)
        options = demo.Options(seconds=0.01)
        (figure,) = demo.watch(demo_run, options, MagicMock(interval_s=1.0), Mock())
        assert (figure.name, figure.met) == ("Dagster UI", serves)


def test_an_outage_after_each_leg_was_current_takes_nothing_back(monkeypatch, demo_run) -> None:
    held = [{"account": ACCOUNT, "conid": conid, "quantity": 1.0} for conid in (1, 2)]
    monkeypatch.setattr(demo_run, "ask", lambda _path: held)

    def seen(rows):
        status = Mock(at=START + timedelta(seconds=20))
        return Mock(book=Mock(legs=[leg(1)], priced=frame(rows)), status=status)

    late = [row(1, Source.STREAM), row(2, Source.QUEUE, seconds=-5.0)]
    assert len(demo_run._paths(seen(late))[1]) == 1
    current_rows = [row(1, Source.STREAM), row(2, Source.QUEUE)]
    complete = demo_run._paths(seen(current_rows))
    assert demo_run.complete_after_s == 20.0
    assert demo_run._paths(seen(late)) == complete
