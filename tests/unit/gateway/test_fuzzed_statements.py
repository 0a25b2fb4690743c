"""Random statements: nothing counted twice, nothing flat that is held, every refusal named."""

import os
from collections import Counter
from random import Random

import pytest

from position_sync_dagster.domain.statement import EventKind, Statement
from position_sync_dagster.gateway.flex import read_statements
from tests.support.flex_files import element, period, position, statement, trade

STATEMENTS = int(os.environ.get("FUZZ_MESSAGES") or 2_000) // 10
BLOCKS = 4
# What a field may hold besides its value.
ODD = ("2,5", "1_0", "much", "0x1p3", "-", "N/A", "")

FIELDS = {
    "OpenPosition": ("conid", "position", "multiplier", "currency", "assetCategory", "symbol"),
    "Trade": ("conid", "quantity", "ibExecID", "tradeID", "dateTime", "tradePrice", "ibOrderID"),
    "CashTransaction": ("amount", "dateTime", "type"),
}


class Written:
    """A statement, and what is true of it: quantities, executions by id, and fees by id."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.held = {n: float(random.choice((-2, -1, 1, 3))) for n in self.numbers(5)}
        self.executed = {f"e{n}": (n % 3, float(random.choice((-2, 1)))) for n in self.numbers(6)}
        self.fees = {f"f{n}": -n / 100 for n in self.numbers(4)}
        self.with_levels = random.random() < 0.5
        self.spoilt = 0

    def numbers(self, most: int) -> range:
        return range(1, 1 + self.random.randint(0, most))

    def text(self) -> bytes:
        """Return the file: rows of all levels of detail, mixed, some of them spoilt."""
        positions = [row for conid in self.held for row in self.holding(conid)]
        trades = [self.execution(name) for name in self.executed] + self.orders()
        fees = self.cash()
        for rows in (positions, trades, fees):
            self.random.shuffle(rows)
        more = self.section("OptionEAE", []) + self.section("CashTransactions", fees)
        more += element("FxLot", {"conid": "1", "quantity": "1,5"})
        if self.random.random() < 0.3:
            positions.append(element("Note", {"position": "7"}))
        return statement(*positions, trades=tuple(trades), more=more)

    def holding(self, conid: int) -> list[str]:
        quantity = self.held[conid]
        rows = [self.position(conid, quantity, "SUMMARY")]
        if self.random.random() < 0.5:
            lots = (quantity - 1, 1.0) if self.random.random() < 0.5 else (quantity,)
            rows += [self.position(conid, one, "LOT", openDateTime="20260102;1000") for one in lots]
        return rows

    def position(self, conid: int, quantity: float, level: str, **more: str) -> str:
        kind = self.random.choice(("OPT", "FSFOP", "FSOPT"))
        fields = {"position": f"{quantity:g}", "assetCategory": kind, **self.level(level)} | more
        return self.odd(position(conid, **fields), spoil=level == "SUMMARY")

    def execution(self, name: str) -> str:
        conid, quantity = self.executed[name]
        fields = {"conid": str(conid + 1), "quantity": f"{quantity:g}", "ibOrderID": f"{conid}"}
        return self.odd(trade(name, tradeID=f"t{name}", **fields, **self.level("EXECUTION")))

    def orders(self) -> list[str]:
        sums: Counter[int] = Counter()
        for conid, quantity in self.executed.values():
            sums[conid] += quantity  # type: ignore[assignment]
        return [
            trade(
                "", tradeID="", transactionID="", conid=str(conid + 1), quantity=f"{total:g}",
                ibOrderID=f"{conid}", **self.level("ORDER"),
            )
            for conid, total in sums.items()
            if total and self.random.random() < 0.7
        ]  # fmt: skip

    def cash(self) -> list[str]:
        common = {"type": "Other Fees", "currency": "USD", "dateTime": "20260305"}
        rows = [
            self.odd(
                element(
                    "CashTransaction",
                    {"accountId": "DUSIM0001", "transactionID": name, "amount": f"{amount}"}
                    | common
                    | self.level("DETAIL"),
                )
            )
            for name, amount in self.fees.items()
        ]
        total = f"{sum(self.fees.values()):.2f}"
        of_all = {"accountId": "-", "transactionID": "", "amount": total} | common
        return [*rows, element("CashTransaction", of_all | self.level("SUMMARY"))]

    def level(self, name: str) -> dict[str, str]:
        return {"levelOfDetail": name if self.with_levels else ""}

    def section(self, name: str, rows: list[str]) -> str:
        return f"<{name}>{''.join(rows)}</{name}>"

    def odd(self, row: str, *, spoil: bool = True) -> str:
        """Return the row, perhaps with one field that holds something else, or without it."""
        if not spoil or self.random.random() > 0.15:
            return row
        tag = row[1:].split(" ", 1)[0]
        name = self.random.choice(FIELDS[tag])
        before, rest = row.split(f' {name}="', 1) if f' {name}="' in row else (row, "")
        if not rest:
            return row
        after = rest.split('"', 1)[1]
        if self.random.random() < 0.5:
            return before + after
        odd = ODD[-3:] if name.endswith("ID") else ODD  # an id may be any text
        return f'{before} {name}="{self.random.choice(odd)}"{after}'


def check(written: Written, found: Statement) -> None:
    positions = {one.conid: one.position for one in found.positions}
    assert len(positions) == len(found.positions), "a holding twice"
    assert all(written.held[conid] == held for conid, held in positions.items())
    if not found.lacks_positions:
        assert positions == written.held, "flat, and it is held"
    else:
        assert any("OpenPosition" in what for what, _remedy in found.left_out)
    names = [one.execution_id for one in found.executions]
    assert len(names) == len({name.lstrip("t") for name in names}), "a trade twice"
    for one in found.executions:
        conid, quantity = written.executed[one.execution_id.lstrip("t")]
        assert (one.conid, one.change) == (conid + 1, quantity)
    covered = period(found)
    if covered is not None:
        assert len(names) == len(written.executed), "covered, and a trade is not there"
    fees = [one for one in found.events if one.kind is EventKind.CASH]
    assert len({one.event_id for one in fees}) == len(fees) == len(found.events) - bool(covered)
    for one in fees:
        name = one.event_id.rpartition(":")[2]
        assert one.amount in (written.fees[name], None)
    for what, remedy in found.left_out:
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
        (found,) = read_statements(written.text(), "a.xml")
        try:
            check(written, found)
        except AssertionError as error:
            raise AssertionError(f"FUZZ seed {seed}: {error}\n{written.text().decode()}") from error
        left_out += len(found.left_out)
    assert left_out, "no row was spoilt"
