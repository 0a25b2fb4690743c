"""What fills cost: twenty days of fills whose quotes are known, counted by hand in `Decimal`."""

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal as D
from typing import Any

import pytest

from position_sync_dagster.cli.mcp import told
from position_sync_dagster.domain.position_update import Source, ValueOrigin
from position_sync_dagster.money.past.movements import Movement
from position_sync_dagster.money.reports.fill_costs import read_fill_costs
from tests.support import command_line
from tests.support.money_rows import row
from tests.unit.money.campaigns.test_closed_campaigns import CALL, PUT, A, leg, moved

MONDAY = date(2026, 2, 2)
DAYS = [day for day in (MONDAY + timedelta(days=n) for n in range(28)) if day.weekday() < 5]
FEE = D("1.30")


def at(day: date, hour: int, minute: int = 0, second: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=UTC)


def fill(conid: int, quantity: int, price: D, when: datetime, order: str) -> Movement:
    traded = moved(conid, float(quantity), float(price), 2, fee=float(-FEE), order_id=order)
    name = f"{order}:{conid}"
    return replace(
        traded, movement_id=name, at=when, day=when.date(), session_date=when.date(), trade_id=name
    )


def quoted(conid: int, bid: D, ask: D, when: datetime, **more: object) -> Any:
    price = float((bid + ask) / 2)
    values = dict(
        bid=float(bid), ask=float(ask), market_price=price, market_value=-200 * price,
        multiplier=100.0, position=-2.0, value_source=ValueOrigin.TICK, source=Source.STREAM,
        market_data_type=1,
    )  # fmt: skip
    return row(conid, account=A, timestamp=when, **values | more)


class TwentyDays:
    """Each day two puts are sold without a quote, one is bought back at ten, the other at three."""

    def __init__(self) -> None:
        self.fills: list[Movement] = []
        self.rows: list[object] = []
        self.by_hour: dict[str, list[D]] = defaultdict(lambda: [D(0), D(0), D(0)])

        for number, day in enumerate(DAYS):
            opened = fill(PUT, -2, D("5"), at(day, 14, 45), f"open-{number}")
            self.fills.append(opened)

            for hour, local in ((15, "10:00"), (20, "15:00")):
                bid = D("3") + D(number) / 20
                width = D("0.1") + D(number % 4) / 50
                price = bid + width * D(number % 5) / 4  # from the bid to the ask
                when = at(day, hour, 10, 7)

                just_before, just_after = timedelta(seconds=3), timedelta(milliseconds=1)
                self.rows.append(quoted(PUT, bid - 1, bid + 9, when - timedelta(seconds=20)))
                self.rows.append(quoted(PUT, bid, bid + width, when - just_before))
                self.rows.append(quoted(PUT, bid - 2, bid + 2, when + just_after))
                self.fills.append(fill(PUT, 1, price, when, f"{hour}-{number}"))

                sums = self.by_hour[local]
                sums[0] += 100 * (price - (bid + width / 2))
                sums[1] += 100 * width
                sums[2] += FEE


TWENTY = TwentyDays()


@pytest.fixture
def lake(lake):
    lake.registry.sync.add_many([leg(PUT, "csp")])
    return lake


@pytest.fixture
def twenty(lake):
    lake.movements.derive(lambda: TWENTY.fills)
    lake.updates.sync.append(TWENTY.rows)
    return lake


async def test_twenty_days_cost_what_a_sum_by_hand_says(twenty, client, settings):
    groups = command_line.json_of("fills", "--by", "hour")
    group_of = {group["group"]: group for group in groups}
    assert group_of.keys() == {"09:00", "10:00", "15:00"}
    for hour, (slippage, spread, fees) in TWENTY.by_hour.items():
        group = group_of[hour]
        assert group["known"] == 20
        assert group["fills"] == 20
        assert group["why_unknown"] is None
        assert group["slippage"] == pytest.approx(float(slippage), abs=0.005)
        assert group["part_of_spread"] == pytest.approx(float(slippage / spread))
        assert group["fees"] == pytest.approx(float(fees))
        assert group["cost"] == pytest.approx(float(slippage + fees), abs=0.005)

    opened = group_of["09:00"]
    assert opened["known"] == 0
    assert opened["fills"] == 20
    assert opened["slippage"] is None
    assert opened["fees"] is None
    assert opened["cost"] is None
    assert opened["fees_without_quote"] == pytest.approx(20 * 1.3)
    assert opened["why_unknown"] == "20: no line had a quote right before it"

    [strategy] = command_line.json_of("fills")
    assert strategy["group"] == "csp"
    assert strategy["known"] == 40
    assert strategy["fills"] == 60
    total = sum(sums[0] + sums[2] for sums in TWENTY.by_hour.values())
    assert strategy["cost"] == pytest.approx(float(total), abs=0.005)

    served = (await client.get("/api/v1/fills", params={"by": "hour"})).json()
    assert served["groups"] == groups
    assert served["fills"] == command_line.json_of("fills", "--list")
    assert told(settings, "fills", by="hour")["fills"] == groups
    later = command_line.json_of("fills", "--since", f"{DAYS[-1]}", "--by", "underlying")
    assert [(group["group"], group["fills"]) for group in later] == [("XYZ", 3)]
    assert "csp" in command_line.run("fills", "--by", "month", "--list")


def test_a_person_who_reads_them_sees_no_warning_of_a_library(twenty, settings, recwarn):
    assert read_fill_costs(twenty, settings)
    assert [str(warning.message) for warning in recwarn] == []


DAY = date(2026, 3, 4)
NOON = at(DAY, 17)


def costs(lake, fills: list[Movement], *rows: object) -> list[dict[str, object]]:
    lake.movements.derive(lambda: fills)
    lake.updates.sync.append(rows)
    return command_line.json_of("fills", "--list")


SOLD = fill(PUT, -1, D("5"), at(DAY, 15), "open")
BOUGHT = fill(PUT, 1, D("3"), NOON, "close")
BEFORE = NOON - timedelta(seconds=2)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"value_source": ValueOrigin.PORTFOLIO}, "its line was not trusted, or had no quote"),
        ({"bid": None}, "its line was not trusted, or had no quote with two sides"),
        ({"market_data_type": 3}, "its market data was delayed or frozen"),
        ({"bid": 3.3}, "its quote was crossed"),
        ({"timestamp": NOON - timedelta(seconds=90)}, "no line had a quote right before it"),
        ({"source": Source.QUEUE}, "no line had a quote right before it"),
    ],
)
def test_what_is_no_quote_is_named(lake, more, why):
    bad = replace(quoted(PUT, D("2.9"), D("3.1"), BEFORE), **more)
    _opened, closed = costs(lake, [SOLD, BOUGHT], bad)
    assert closed["slippage"] is None
    assert closed["cost"] is None
    assert closed["why_unknown"].startswith(why)  # type: ignore[attr-defined]


def test_a_combination_has_a_cost_only_with_the_quotes_of_all_its_legs(lake):
    """A roll: the put is bought back at 3.00 in a market of 2.90 to 3.00, a call is sold."""
    lake.registry.sync.add_many([leg(CALL, "csp")])
    roll = [replace(BOUGHT, order_id="roll"), fill(CALL, -1, D("1.95"), NOON, "roll")]
    put = quoted(PUT, D("2.9"), D("3"), BEFORE)
    _opened, *legs = costs(lake, [SOLD, *roll], put)
    assert [cost["slippage"] for cost in legs] == [None, None]
    assert {cost["why_unknown"].partition(":")[0] for cost in legs} == {  # type: ignore[attr-defined]
        "another leg of its order has no quote", "no line had a quote right before it",
    }  # fmt: skip

    lake.updates.sync.append([quoted(CALL, D("1.9"), D("2.1"), BEFORE)])
    [whole] = [group for group in command_line.json_of("fills", "--by", "order") if group["known"]]
    assert whole["group"] == "roll"
    assert whole["fills"] == 2
    assert whole["known"] == 2
    assert whole["slippage"] == pytest.approx(100 * (0.05 + 0.05))
    assert whole["part_of_spread"] == pytest.approx((5 + 5) / (10 + 20))


def test_a_trade_that_the_broker_took_back_is_no_fill(lake):
    cancelled = replace(fill(PUT, -1, D("3"), NOON, "cancel"), codes="Ca", corrects=BOUGHT.trade_id)
    assert len(costs(lake, [SOLD, BOUGHT, cancelled])) == 1


@pytest.mark.parametrize("lacking", ["fee", "fee_currency"])
def test_a_fee_that_is_not_known_makes_no_cost(lake, lacking):
    unknown = replace(BOUGHT, **{lacking: None})
    [_opened, closed] = costs(lake, [SOLD, unknown], quoted(PUT, D("2.9"), D("3"), BEFORE))
    assert closed["slippage"] == pytest.approx(5)
    assert closed["fee"] is None
    assert closed["cost"] is None
    [group] = command_line.json_of("fills")
    assert group["slippage"] == pytest.approx(5)
    assert group["cost"] is None
    assert "1: the fee is not known" in group["why_unknown"]


def test_without_trades_a_person_reads_so(lake):
    assert "Nothing was traded" in command_line.run("fills")
