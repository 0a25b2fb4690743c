"""Random statements: nothing counted twice, nothing flat that is held, every refusal named."""

import os
from collections import Counter
from random import Random

import pytest

from position_sync_dagster.money.past.closes import EventKind, Statement
from position_sync_dagster.money.past.flex import read_statements
from tests.support.flex_files import element, period, position, sections, statement, trade

STATEMENTS = int(os.environ.get("FUZZ_MESSAGES") or 2_000) // 10
BLOCKS = 4
# What a field may hold besides its value.
ODD = ("2,5", "1_0", "much", "0x1p3", "-", "N/A", "")
FIELDS = {
    "OpenPosition": ("conid", "position", "multiplier", "currency", "assetCategory", "symbol"),
    "Trade": ("conid", "quantity", "ibExecID", "tradeID", "dateTime", "tradePrice", "ibOrderID"),
    "CashTransaction": ("amount", "dateTime", "type"),
}
FEE = {"type": "Other Fees", "currency": "USD", "dateTime": "20260305"}


class Written:
    """A statement, and what is true of it: quantities, executions by id, and fees by id."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.held = {n: float(random.choice((-2, -1, 1, 3))) for n in self.numbers(5)}
        self.executed = {}
        for number in self.numbers(6):
            quantity = float(random.choice((-2, 1)))
            self.executed[f"e{number}"] = (number % 3, quantity)
        self.fees = {f"f{n}": -n / 100 for n in self.numbers(4)}
        self.with_levels = random.random() < 0.5

    def numbers(self, most: int) -> range:
        return range(1, 1 + self.random.randint(0, most))

    def text(self) -> bytes:
        """Return the file: rows of all levels of detail, mixed, some of them spoilt."""
        positions = [row for conid in self.held for row in self.holding(conid)]
        trades = [self.execution(name) for name in self.executed] + self.orders()
        fees = [self.fee(name, f"{amount}", "DETAIL") for name, amount in self.fees.items()]
        total = sum(self.fees.values())
        fees.append(self.fee("", f"{total:.2f}", "SUMMARY", accountId="-"))
        for rows in (positions, trades, fees):
            self.random.shuffle(rows)
        more = f"<OptionEAE></OptionEAE><CashTransactions>{''.join(fees)}</CashTransactions>"
        more += element("FxLot", {"conid": "1", "quantity": "1,5"})
        if self.random.random() < 0.3:
            positions.append(element("Note", {"position": "7"}))
        return statement(*positions, trades=tuple(trades), more=more)

    def holding(self, conid: int) -> list[str]:
        def row(quantity: float, level: str, **more: str) -> str:
            kind = self.random.choice(("OPT", "FSFOP", "FSOPT"))
            fields = {"position": f"{quantity:g}", "assetCategory": kind, **self.level(level)}
            return position(conid, **fields | more)

        held = self.held[conid]
        lots = self.random.choice(((), (), (held - 1, 1.0), (held,)))
        rows = [self.odd(row(held, "SUMMARY"))]
        rows += [row(lot, "LOT", openDateTime="20260102;1000") for lot in lots]
        return rows

    def execution(self, name: str) -> str:
        conid, quantity = self.executed[name]
        fields = {"conid": str(conid + 1), "quantity": f"{quantity:g}", "ibOrderID": f"{conid}"}
        return self.odd(trade(name, tradeID=f"t{name}", **fields, **self.level("EXECUTION")))

    def orders(self) -> list[str]:
        sums: Counter[int] = Counter()
        for conid, quantity in self.executed.values():
            sums[conid] += quantity  # type: ignore[assignment]
        rows = []
        for conid, total in sums.items():
            if total and self.random.random() < 0.7:
                fields = {
                    "conid": str(conid + 1),
                    "quantity": f"{total:g}",
                    "ibOrderID": f"{conid}",
                }
                level = self.level("ORDER")
                rows.append(trade("", tradeID="", transactionID="", **fields, **level))
        return rows

    def fee(self, name: str, amount: str, level: str, **more: str) -> str:
        own = {"accountId": "DUSIM0001", "transactionID": name, "amount": amount} | more
        row = element("CashTransaction", own | FEE | self.level(level))
        if level == "DETAIL":
            return self.odd(row)

        return row

    def level(self, name: str) -> dict[str, str]:
        written = self.random.choice((name, name.lower(), name.title()))
        return {"levelOfDetail": written if self.with_levels else ""}

    def odd(self, row: str) -> str:
        """Return the row, perhaps with one field that holds something else, or without it."""
        name = self.random.choice(FIELDS[row[1:].split(" ", 1)[0]])
        before, found, rest = row.partition(f' {name}="')
        if not found or self.random.random() > 0.15:
            return row
        odd = self.random.choice(ODD[-3:] if name.endswith("ID") else ODD)  # an id may be any text
        after = rest.split('"', 1)[1]
        return before + self.random.choice(("", f'{found}{odd}"')) + after


def check(written: Written, statement: Statement) -> None:
    positions = {position.conid: position.position for position in statement.positions}
    assert len(positions) == len(statement.positions), "a holding twice"
    for conid, held in positions.items():
        assert written.held[conid] == held
    if statement.lacks_positions:
        assert any("OpenPosition" in what for what, _remedy in statement.left_out)
    else:
        assert positions == written.held, "flat, and it is held"
    names = [execution.execution_id.lstrip("t") for execution in statement.executions]
    assert len(names) == len(set(names)), "a trade twice"

    for name, amount in zip(names, statement.executions, strict=True):
        conid, quantity = written.executed[name]
        assert amount.conid == conid + 1
        assert amount.change == quantity
    covered = period(statement)
    assert covered is None or len(names) == len(written.executed), "covered, and a trade is missing"

    fees = {event.event_id: event for event in statement.events if event.kind is EventKind.CASH}
    assert len(fees) == len(statement.events) - bool(covered) - len(sections(statement))
    for name, amount in fees.items():
        assert amount.amount in (written.fees[name.rpartition(":")[2]], None)  # type: ignore[attr-defined]
    for what, remedy in statement.left_out:
        assert what.startswith("a.xml: ")
        assert remedy.endswith("download it again.")


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_statements_are_read_right_or_their_rows_are_named(block: int) -> None:
    chosen = os.environ.get("FUZZ_SEED") or "1"
    first = Random().randrange(10**9) if chosen == "random" else int(chosen) * 10**6
    left_out = 0
    for number in range(STATEMENTS // BLOCKS):
        seed = f"{first + block * 10**5 + number}"
        written = Written(Random(seed))
        (statement,) = read_statements(written.text(), "a.xml")
        try:
            check(written, statement)
        except AssertionError as error:
            raise AssertionError(f"FUZZ seed {seed}: {error}\n{written.text().decode()}") from error
        left_out += len(statement.left_out)
    assert left_out, "no row was spoilt"
