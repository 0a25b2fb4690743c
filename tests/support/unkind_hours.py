"""The unkind hours of the accelerated day: what real gateways do to clients, one kind an hour.

Each hour plays actions of the simulator that keep all promises of the wire, and checks what the
stream says meanwhile. Afterwards everything is kind again; that all recovers is the day's to check.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.leg import LegState
from position_sync_dagster.domain.update import PriceKind, ValueOrigin

ODD_HOLDINGS: tuple[tuple[int, float | str, str | None], ...] = (
    (0, 1.0, None),
    (-5, 1.0, None),
    (2**40, 1.0, None),
    (990000001, "nan", None),
    (990000002, "1.7976931348623157E308", None),
    (990000003, 1.0, " "),
)
"""Rows that cannot be used: conid, quantity and symbol."""

FOREIGN = "DUOTHER99"
OLD_S = 3600.0
BROKER = {ValueOrigin.PORTFOLIO, ValueOrigin.PNL_SINGLE}

SOME = 8
"""An hour begins when so many holdings are streamed."""


class UnkindHours:
    """Plays the unkind hours on the day's simulator.

    Args:
        day: Its simulator `sim`, its `streamer`, its handler `auditor`, its prices `pinned`, the
            accounts, and `eventually`.
    """

    def __init__(self, day: Any, accounts: tuple[str, str]) -> None:
        self.day, self.sim, self.streamer = day, day.sim, day.streamer
        self.eventually = day.eventually
        self.a, self.b = accounts
        self.played: set[int] = set()
        self._hours: dict[int, Callable[[], Awaitable[None]]] = {
            0: self.a_line_dies_among_live_ones,
            1: self.lines_stay_dead_after_restores,
            2: self.a_login_while_offline_that_answers_nothing,
            4: self.a_login_while_offline_with_cached_answers,
            6: self.account_feeds_end,
            8: self.downloads_end_late_never_and_without_a_name,
            10: self.position_lists_end_late_and_not_in_time,
            12: self.lists_are_empty_and_another_user_logs_in,
            13: self.quotes_are_odd_and_ticks_are_few,
            15: self.odd_holdings,
        }

    @property
    def left(self) -> set[int]:
        """Return the hours that were not played."""
        return self._hours.keys() - self.played

    async def play(self, hour: int) -> None:
        if hour in self._hours:
            await self.eventually(self._can_begin)
            await self._hours[hour]()
            self.played.add(hour)

    # -- lines --------------------------------------------------------------------------------

    async def a_line_dies_among_live_ones(self) -> None:
        dead, dumb = self._streamed()[:2]
        assert self.sim.silence_line(dead[1]) == 1
        self.day.pin_all()
        await self.eventually(lambda: "differs" in (self._newest(dead).note or ""))
        assert self._newest(dead).value_source is not ValueOrigin.TICK
        await self._is_marked(dead)
        assert self.sim.silence_line(dumb[1]) == 1
        assert self.sim.silence_line(dumb[1], reset=True) == 1
        self.day.pin_all()
        await self._is_marked(dumb)
        assert self.sim.stats()["silent_lines"] == 0

    async def lines_stay_dead_after_restores(self) -> None:
        sim = self.sim
        sim.after_restore("dead")
        sim.farm("usfarm", 2103)
        sim.farm("usfarm", 2104)
        await self._all_lines_speak()
        sim.connectivity("lost")
        await self._is(SessionState.BLIND)
        sim.connectivity("restored_data_kept")
        await self._is(SessionState.LIVE)
        await self._all_lines_speak()
        sim.after_restore("alive")

    async def quotes_are_odd_and_ticks_are_few(self) -> None:
        """New lines begin in the middle, so that each has the odd quote alone."""
        sim, pinned = self.sim, self.day.pinned
        outside, zero, wing, wide, size, model = self._streamed_conids()[:6]
        high = pinned[outside] + 3.0
        odd = {
            outside: {"bid": pinned[outside], "ask": pinned[outside] + 0.02, "mark": high},
            zero: {"ask": 0.05, "last": 1.2, "last_age_s": OLD_S, "mark": 0.0},
            wing: {"ask": 0.05, "last": 1.2, "last_age_s": OLD_S, "mark": 0.02},
            wide: {"bid": 1.0, "ask": 3.0, "last": 1.1, "last_age_s": OLD_S, "no_mark": True},
        }
        kept = {*odd, size, model}
        self.day.kept |= kept
        self.day.auditor.odd_prices |= kept
        for conid, quote in odd.items():
            sim.pin_quote(conid, **quote)
        # A running line whose sizes alone tick keeps its mark.
        sim.ticking(size, ["size"])
        sim.ticking(model, ["model"])
        await asyncio.sleep(0.5)
        assert self._prices(size) == {(PriceKind.MARK, pinned[size])}
        await self.eventually(lambda: self._prices(zero) == {(PriceKind.MARK, 0.0)})
        assert all(row.position and not row.market_value for row in self._rows(zero))
        sim.disconnect()
        # A mark that the quote contradicts does not count.
        await self.eventually(lambda: self._kinds(outside) == {PriceKind.MID})
        await self.eventually(lambda: self._prices(zero) == {(PriceKind.MARK, 0.0)})
        await self.eventually(lambda: self._prices(wing) == {(PriceKind.MARK, 0.02)})
        await self.eventually(lambda: self._prices(wide) == {(PriceKind.MID, 2.0)})
        await self.eventually(lambda: self._origins(model) <= BROKER and self._origins(model))
        await self.eventually(lambda: self._origins(size) <= BROKER and self._origins(size))
        sim.ticking(size, None)
        sim.ticking(model, None)
        self.day.kept -= kept
        self.day.pin_all()

    # -- connectivity -------------------------------------------------------------------------

    async def a_login_while_offline_that_answers_nothing(self) -> None:
        await self._login_while_offline("none", 1100, "restored_data_kept")

    async def a_login_while_offline_with_cached_answers(self) -> None:
        await self._login_while_offline("cached", 2110, "restored_data_lost")

    async def _login_while_offline(self, answers: str, login_code: int, restore: str) -> None:
        sim = self.sim
        sim.connectivity("lost", answers, login_code)
        await self._is(SessionState.BLIND)
        logins = sim.stats()["connections"]["total"]
        sim.disconnect()
        await self.eventually(lambda: sim.stats()["connections"]["total"] > logins)
        received = self.day.auditor.received
        await asyncio.sleep(0.3)
        assert self.streamer.state is SessionState.BLIND
        assert self.day.auditor.received == received
        sim.connectivity(restore)
        await self._is(SessionState.LIVE)

    # -- accounts -----------------------------------------------------------------------------

    async def account_feeds_end(self) -> None:
        for account, notice in ((self.a, True), (self.b, False)):
            self.sim.download_end(account, delay_s=None)
            await self.eventually(lambda a=account: self._fed(a))
            assert self.sim.silence_account(account, notice=notice) == 1
            await self._has_problem(account)
            self.sim.download_end(account)
            await self._recovers(account)

    async def downloads_end_late_never_and_without_a_name(self) -> None:
        sim = self.sim
        sim.download_end(self.a, delay_s=0.3)
        sim.download_end(self.b, delay_s=None)
        await self._has_problem(self.b)
        await self._recovers(self.a)  # whatever becomes of the other one
        await self._has_problem(self.b)
        sim.download_end(self.b)
        sim.download_end(self.a, blank=True)
        await self._recovers(self.b)
        await asyncio.sleep(0.5)
        sim.download_end(self.a)
        await self._recovers(self.a)

    async def position_lists_end_late_and_not_in_time(self) -> None:
        sim, timeout_s = self.sim, self.streamer.settings.gateway_timeout_s
        for delay_s in (0.3, timeout_s + 0.5):
            reconnects = self.streamer.counts.reconnects
            lists = self._lists()
            sim.positions_end(delay_s=delay_s, late_rows=20)
            sim.connectivity("lost")
            await self._is(SessionState.BLIND)
            sim.connectivity("restored_data_kept")
            await self.eventually(lambda n=lists: self._lists() > n)
            if delay_s > timeout_s:  # the late rest is never taken for the next list
                await self.eventually(
                    lambda n=reconnects: (
                        self.streamer.counts.reconnects > n
                        or self.streamer.state is SessionState.BLIND
                    )
                )
            sim.positions_end()
            await self._is(SessionState.LIVE)

    async def lists_are_empty_and_another_user_logs_in(self) -> None:
        sim = self.sim
        for empty, happens in ((True, self._has_problem), (False, self._recovers)):
            sim.empty_lists(empty=empty)
            sim.connectivity("lost")
            await self._is(SessionState.BLIND)
            sim.connectivity("restored_data_kept")  # the positions are listed again
            await self._is(SessionState.LIVE)
            for account in (self.a, self.b):
                await happens(account)
        sim.log_in_as([self.b])
        await self._has_problem(self.a)
        sim.log_in_as([self.a, self.b])
        await self._recovers(self.a)

    async def odd_holdings(self) -> None:
        sim = self.sim
        known = next(key for key in self._streamed() if key[0] == self.a)
        position = self._newest(known).position
        rows = [(self.a, *odd) for odd in ODD_HOLDINGS]
        rows += [(FOREIGN, 990000004, 1.0, None), ("", 990000005, 1.0, None)]
        rows += [(self.a, known[1], "inf", None)]
        for account, conid, quantity, symbol in rows:
            sim.holding(account, conid, quantity, symbol)
        await self.eventually(
            lambda: f"{len(rows)} holdings are set aside" in (self.streamer.detail or "")
        )
        await asyncio.sleep(0.5)
        assert self._newest(known).position == position
        for account, conid, _quantity, _symbol in rows:
            sim.holding(account, conid, None)
        sim.connectivity("lost")
        await self._is(SessionState.BLIND)
        sim.connectivity("restored_data_kept")  # the positions are listed again
        await self.eventually(lambda: "set aside" not in (self.streamer.detail or ""))

    # -- what the stream says -----------------------------------------------------------------

    def _can_begin(self) -> bool:
        keys = self._streamed()
        return len(keys) >= SOME and self.day.are_current(keys)

    def _streamed(self) -> list[tuple[str, int]]:
        """Return the streamed holdings of conids that only one account holds."""
        keys = [key for key, state in self.streamer.routes.items() if state is LegState.STREAMED]
        conids = [conid for _, conid in keys]
        return sorted(key for key in keys if conids.count(key[1]) == 1)

    def _streamed_conids(self) -> list[int]:
        """Return the conids that get a line first, also on the next connection."""
        first = {leg.conid for leg in self.day.lake.registry.legs if leg.priority == 1}
        return sorted({conid for _, conid in self._streamed()} & first)

    def _newest(self, key: tuple[str, int]) -> Any:
        return self.day.auditor.newest[key]

    def _rows(self, conid: int) -> list[Any]:
        routes = self.streamer.routes.items()
        keys = [k for k, state in routes if k[1] == conid and state is LegState.STREAMED]
        return [self._newest(key) for key in keys]

    def _prices(self, conid: int) -> set[tuple[Any, Any]]:
        return {(row.price_kind, row.market_price) for row in self._rows(conid)}

    def _kinds(self, conid: int) -> set[Any]:
        return {row.price_kind for row in self._rows(conid)}

    def _origins(self, conid: int) -> set[Any]:
        return {row.value_source for row in self._rows(conid)}

    async def _is(self, state: SessionState) -> None:
        await self.eventually(lambda: self.streamer.state is state)

    async def _is_marked(self, key: tuple[str, int]) -> None:
        await self.eventually(lambda: self.day.are_current([key]))

    async def _all_lines_speak(self) -> None:
        """Move the prices: each line has the new one, although every line was dead."""
        keys = self._streamed()
        self.day.pin_all()
        await self.eventually(lambda: self.day.are_current(keys))

    def _lists(self) -> int:
        requests = self.sim.stats()["requests"].values()
        return sum(counts.get("reqPositions", 0) for counts in requests)

    def _fed(self, account: str) -> bool:
        feed = self.sim.stats()["account_feed"]
        return feed is not None and feed["account"] == account

    async def _has_problem(self, account: str) -> None:
        await self.eventually(lambda: f"account {account}" in (self.streamer.detail or ""))

    async def _recovers(self, account: str) -> None:
        await self.eventually(lambda: f"account {account}" not in (self.streamer.detail or ""))
