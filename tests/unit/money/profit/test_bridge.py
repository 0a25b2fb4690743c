"""The profit of the day of an account adds up, whatever happened; the oracle counts in cents."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.money.profit.bridge import Earned, Earnings, bridge

NOON = datetime(2026, 3, 9, 16, 0, tzinfo=UTC)
STEP = timedelta(seconds=1)


@dataclass
class History:
    """An account during a day: what it earned in cents, and what the program came to know of it.

    Attributes:
        opened: Of each open holding the cents that it earned today, and whether they are known.
        gone: The same of what closed, with the time.
        besides: What the broker counts that is in no holding.
        at_row: The true unknown cents at the moment of `row`, the newest that was written.
    """

    random: Random
    now: datetime = NOON
    opened: dict[str, tuple[int, bool]] = field(default_factory=dict)
    gone: list[tuple[str, int, bool, datetime]] = field(default_factory=list)
    besides: int = 0
    is_cut_off: bool = False
    row: AccountSummary | None = None
    at_row: int = 0

    def _coin(self) -> bool:
        return self.random.random() < 0.8

    def fill(self) -> None:
        self.opened[f"leg {self.now}"] = (self.random.randint(-50_000, 50_000), self._coin())

    def close(self) -> None:
        if self.opened:
            name = self.random.choice(sorted(self.opened))
            cents, _ = self.opened.pop(name)
            self.gone.append((name, cents, self._coin(), self.now))

    def roll(self) -> None:
        self.close()
        self.fill()

    def assign(self) -> None:
        self.close()
        self.opened[f"shares {self.now}"] = (self.random.randint(-9_999_999, 9_999_999), True)

    def jump(self) -> None:
        for name, (cents, _) in self.opened.items():
            self.opened[name] = (cents + self.random.randint(-500_000, 500_000), self._coin())

    def cut_off(self) -> None:
        self.is_cut_off = not self.is_cut_off

    def interest(self) -> None:
        self.besides += self.random.randint(-3_000, 3_000)

    def record(self) -> None:
        """Write a row, as the stream does; nothing comes while it is cut off."""
        if self.is_cut_off:
            return
        of_opened = [(cents, is_known) for cents, is_known in self.opened.values()]
        of_gone = [(cents, is_known) for _, cents, is_known, _ in self.gone]
        everything = [*of_opened, *of_gone]
        cents = self.besides + sum(cents for cents, _ in everything)
        account = AccountSummary(
            account="U1", currency="USD", daily_pnl=cents / 100, timestamp=self.now,
            pnl_received_at=self.now,
        )  # fmt: skip
        profits = [("USD", cents / 100 if is_known else None) for cents, is_known in of_opened]
        self.row = account.with_open_profit(profits, len(profits))
        self.at_row = self.besides + sum(cents for cents, is_known in everything if not is_known)


EVENTS = (
    History.fill, History.fill, History.close, History.roll, History.assign, History.jump,
    History.cut_off, History.interest, History.record, History.record,
)  # fmt: skip


@pytest.mark.parametrize("histories", [300, 10_000])
def test_the_parts_of_today_are_the_broker_s_number_after_any_history(histories: int) -> None:
    for seed in range(histories):
        random = Random(seed)
        history = History(random)
        history.record()
        for event in random.choices(EVENTS, k=random.randint(1, 40)):
            history.now += STEP
            event(history)

        opened = [Earned(n, c / 100 if known else None) for n, (c, known) in history.opened.items()]
        closed = [Earned(n, c / 100 if known else None, at) for n, c, known, at in history.gone]
        assert history.row is not None
        today = bridge(history.row, Earnings.of(opened), closed, history.now)

        parts = (today.open, today.closed, today.cash, today.unexplained)
        assert None not in parts, seed
        assert round(sum(parts), 2) == history.row.daily_pnl, seed
        assert today.account == history.row.daily_pnl, seed
        assert round(today.unexplained * 100) == history.at_row, seed
        assert today.age_s == (history.now - history.row.timestamp).total_seconds()


ACCOUNT = AccountSummary(
    account="U1", currency="USD", daily_pnl=50.0, timestamp=NOON, pnl_received_at=NOON,
)  # fmt: skip


def test_what_is_not_known_is_not_explained_by_name() -> None:
    opened = [Earned("SPY 650C", 30.004), Earned("SPY 640P", None)]
    closed = [Earned("QQQ 500C", None, NOON), Earned("QQQ 490C", 5.0, NOON)]
    today = bridge(ACCOUNT, Earnings.of(opened), closed, NOON)
    assert today.open == 30.0
    assert today.closed == 5.0
    assert today.cash == 0.0
    assert today.unexplained == 15.0
    assert "SPY 640P (open), QQQ 500C (closed)" in today.reasons["unexplained"]
    assert today.open_unknown == 1
    assert today.closed_unknown == 1


def test_a_holding_that_closed_after_the_account_s_number_is_open_in_it() -> None:
    row = ACCOUNT.with_open_profit([("USD", 50.0)], 1)
    later = Earned("SPY 650C", 70.0, NOON + STEP)
    assert bridge(row, Earnings.of([]), [later], NOON + 2 * STEP).closed == 0.0


def test_prices_that_jumped_after_the_account_s_number_are_in_no_part_of_it() -> None:
    row = ACCOUNT.with_open_profit([("USD", 48.0)], 1)
    today = bridge(row, Earnings.of([Earned("SPY 650C", -10_983.0)]), [], NOON + STEP)
    assert today.open == 48.0
    assert today.unexplained == 2.0
    assert today.age_s == 1.0


def test_without_the_account_s_number_nothing_is_said_to_be_unexplained() -> None:
    unknown = AccountSummary(account="U1", timestamp=NOON)
    today = bridge(unknown, Earnings.of([Earned("SPY 650C", None)]), [], NOON)
    assert today.account is None
    assert today.unexplained is None
    assert today.age_s is None
