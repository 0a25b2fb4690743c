"""The shapes of statements that people have posted, without their content: what is read of them."""

from dataclasses import dataclass, field

import pytest

from position_sync_dagster.domain.closes import Statement
from position_sync_dagster.errors import StatementError
from position_sync_dagster.gateway.flex import read_statements
from tests.support.flex_files import element, period, position, statement, trade

EAE = {"transactionType": "Expiration", "conid": "1", "quantity": "1", "tradeID": "9"}
FEE = {"type": "Other Fees", "currency": "USD", "dateTime": "20260305", "amount": "-0.02"}
LOT = {"openDateTime": "20260102;100000", "originatingOrderID": "5", "levelOfDetail": ""}
NO_IDS = {"tradeID": "", "transactionID": "N/A"}


def section(name: str, *rows: str) -> str:
    return f"<{name}>{''.join(rows)}</{name}>"


@dataclass(frozen=True)
class Shape:
    """Rows of a statement, and what is read: quantities, executions, events and flaws."""

    positions: tuple[str, ...] = ()
    trades: tuple[str, ...] = ()
    more: str = ""
    held: dict[int, float] = field(default_factory=dict)
    executed: tuple[str, ...] = ()
    events: int = 0
    left_out: tuple[str, ...] = ()

    def read(self) -> Statement:
        data = statement(*self.positions, trades=self.trades, more=self.more)
        (found,) = read_statements(data, "a.xml")
        return found


SHAPES = {
    "an empty section with the name of its rows": Shape(more=section("OptionEAE")),
    "a section with the name of its rows": Shape(
        more=section("OptionEAE", element("OptionEAE", EAE)), events=1
    ),
    "a section that names its account": Shape(
        more=element("OptionEAE", {"accountId": "DUSIM0001", "currency": "USD"})
        + element("CorporateAction", {"accountId": "DUSIM0001", "reportDate": "20260305"})
    ),
    "an option with the margin of a future": Shape(
        positions=(position(7, assetCategory="FSFOP", position="3", multiplier="1000"),),
        held={7: 3},
    ),
    "a fee beside its sum, without levels": Shape(
        more=section(
            "CashTransactions",
            element("CashTransaction", FEE | {"accountId": "-", "transactionID": ""}),
            element("CashTransaction", FEE | {"accountId": "DUSIM0001", "transactionID": "3"}),
        ),
        events=1,
    ),
    "lots beside their summary, without levels": Shape(
        positions=(
            position(1, position="3", levelOfDetail="", openDateTime=""),
            position(1, position="1", **LOT),
            position(1, position="2", **LOT),
        ),
        held={1: 3},
    ),
    "a lot without its summary": Shape(
        positions=(position(1, position="1", **LOT), position(2)),
        held={2: 1},
        left_out=("OpenPosition (conid '1'",),
    ),
    "a holding beside the sum over all accounts": Shape(
        positions=(position(1), position(1, accountId="-", position="1")), held={1: 1}
    ),
    "an order beside its executions, without levels": Shape(
        trades=(
            trade("", ibOrderID="71", quantity="-5", levelOfDetail="", **NO_IDS),
            trade("e1", ibOrderID="71", quantity="-2", levelOfDetail=""),
            trade("e2", ibOrderID="71", quantity="-3", levelOfDetail=""),
        ),
        executed=("e1", "e2"),
    ),
    "a sum of a contract's trades, without levels": Shape(
        trades=(
            trade("", quantity="-2", levelOfDetail="", **NO_IDS),
            trade("e1", levelOfDetail=""),
        ),
        executed=("e1",),
    ),
    "another trade of the contract without an id is no sum": Shape(
        trades=(
            trade("", quantity="-7", levelOfDetail="", **NO_IDS),
            trade("e1", levelOfDetail=""),
        ),
        executed=("e1",),
        left_out=("Trade (conid '1'",),
    ),
    "a contract for difference without an id": Shape(
        trades=(trade("N/A", assetCategory="CFD", conid="290662729", **NO_IDS), trade("e1")),
        executed=("e1",),
        left_out=("Trade (conid '290662729'",),
    ),
    "orders and closed lots between executions": Shape(
        trades=(
            trade("", levelOfDetail="ORDER"),
            trade("e1"),
            element("Lot", {"conid": "1", "quantity": "2", "levelOfDetail": "CLOSED_LOT"}),
            element("Order", {"conid": "1", "quantity": "2"}),
        ),
        executed=("e1",),
    ),
    "elements that are not read": Shape(
        positions=(position(1),),
        more=element("AccountInformation", {"accountId": "DUSIM0001"})
        + section("ConversionRates", element("ConversionRate", {"rate": "1,5"})),
        held={1: 1},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_nothing_is_counted_twice_and_what_is_left_out_is_named(name: str) -> None:
    shape = SHAPES[name]
    found = shape.read()
    assert {one.conid: one.position for one in found.positions} == shape.held
    assert tuple(sorted(one.execution_id for one in found.executions)) == shape.executed
    assert len([one for one in found.events if one is not period(found)]) == shape.events
    assert len(found.left_out) == len(shape.left_out)
    for (what, remedy), named in zip(found.left_out, shape.left_out, strict=True):
        assert what.startswith(f"a.xml: {named}")
        assert remedy
    held_unread = any("OpenPosition" in one for one in shape.left_out)
    assert found.lacks_positions is held_unread
    trades_unread = any("Trade" in one for one in shape.left_out)
    assert (period(found) is None) is trades_unread


def test_the_types_of_a_statement_are_those_of_a_gateway() -> None:
    for theirs, ours in {"FSFOP": "FOP", "FSOPT": "OPT", "STK": "STK"}.items():
        event = element("OptionEAE", EAE | {"assetCategory": theirs})
        found = Shape(
            (position(assetCategory=theirs),), (trade(assetCategory=theirs),), event
        ).read()
        rows = (*found.positions, *found.executions, found.events[0])
        assert [one.sec_type for one in rows] == [ours] * 3


@pytest.mark.parametrize(
    "content", ["<TradeConfirms><TradeConfirm conid='1'/></TradeConfirms>", ""]
)
def test_a_file_of_another_kind_is_named(content: str) -> None:
    data = statement().decode()
    begin, end = data.index("<OpenPositions>"), data.index("</FlexStatement>")
    with pytest.raises(StatementError, match=r"a.xml is no activity statement") as caught:
        read_statements(f"{data[:begin]}{content}{data[end:]}".encode(), "a.xml")
    assert "activity Flex query" in caught.value.remedy


def test_a_file_without_a_statement_is_named() -> None:
    with pytest.raises(StatementError, match="has no statement of an account"):
        read_statements(b'<FlexQueryResponse><FlexStatements count="0"/></FlexQueryResponse>', "a")
