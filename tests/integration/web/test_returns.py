"""What accounts returned, from statements: by the command, HTTP and an assistant alike."""

import pytest

from position_sync_dagster.cli.mcp import told
from position_sync_dagster.money.lake import derived_rows
from position_sync_dagster.money.profit.books import close_books
from position_sync_dagster.money.tables import BOOKS
from position_sync_dagster.settings import Settings
from tests.support import command_line
from tests.support.booked_days import FRIDAY, MONDAY, STOCK, THURSDAY, Booked, Books, held, paid
from tests.support.derived_rows import put_rows


@pytest.fixture
def closed(lake, tmp_path):
    """100 shares at 220, 225 and 216; 500 dollars come on Friday, 100 pounds go on Monday."""
    folder = tmp_path / "flex"
    folder.mkdir()
    books = Books(lake, Settings(lake=lake.path, flex_folder=folder), folder)
    rates = {"GBP": 1.25}

    def state(day, price, cash, pounds, *moved):
        total = {"total": 100 * price + cash + 1.25 * pounds, "cash": cash, "stock": 100 * price}
        booked = Booked(
            held=[held(STOCK, 100, price)], worth=total, cash=moved, rates=rates,
            balances={"USD": cash, "GBP": pounds},
        )  # fmt: skip
        books.state(day, booked)

    state(THURSDAY, 220, 1_000, 400)
    state(FRIDAY, 225, 1_500, 400, paid("Deposits/Withdrawals", 500, FRIDAY))
    state(MONDAY, 216, 1_500, 300, paid("Deposits/Withdrawals", -100, MONDAY, currency="GBP"))
    for day in (FRIDAY, MONDAY):
        books.explained(day)
        rows = close_books(lake, books.settings, day)
        put_rows(lake.derived_table(BOOKS), {day: rows})
    return books


async def test_every_face_says_what_the_books_say(closed, client, settings, lake):
    [returned] = command_line.json_of("returns")
    first = 24_500 / 24_000 - 1
    second = (23_475 + 125) / 24_500 - 1
    assert returned["time_weighted"] == pytest.approx((1 + first) * (1 + second) - 1)
    assert returned["brought"] == 375.0
    assert returned["profit"] == (-400.0)
    assert returned["days_known"] == 2
    assert returned["days"] == 2
    assert returned["money_weighted"] is None
    assert returned["why_unknown"] == "money_weighted: it is less than 28 days"

    books = derived_rows(lake.derived_table(BOOKS))
    assert books["difference"].abs().max() < 0.005
    assert books["owner"].sum() == pytest.approx(returned["brought"])
    assert (books["change"] - books["owner"]).sum() == pytest.approx(returned["profit"])

    answer = (await client.get("/api/v1/returns")).json()
    assert answer["returns"] == [returned]
    days = (await client.get("/api/v1/returns", params={"by": "day", "since": f"{MONDAY}"})).json()
    assert [row["period"] for row in days["returns"]] == ["all", f"{MONDAY}"]
    assert [row["time_weighted"] for row in days["returns"]] == pytest.approx([second] * 2)
    assert told(settings, "returns")["returns"] == [returned]
    assert "-400" in command_line.run("returns", "--by", "month")


def test_without_books_a_person_reads_what_makes_them(lake):
    assert "statements of two trading days" in command_line.run("returns")
