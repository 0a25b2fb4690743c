"""Everything together: to every leg current, fills, a killed host, a gateway down, a restart."""

import os
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from benchmarks.bench import Bench
from benchmarks.documents import markdown_table, replace_part
from benchmarks.hosts.deployment import SERVICES, Deployment, Size
from benchmarks.hosts.processor import STREAMS, used_s
from benchmarks.outcome import Line
from benchmarks.report import quantity
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.errors import LakeError
from tests.support.hosts import Host
from tests.support.logins import Login
from tests.support.promises import assert_kept, waiting

FULL = Size(logins=4, legs=2_500, active=100, latency_s=0.02)
QUICK = Size(logins=2, legs=60, active=10, latency_s=0.0)
DOWN_S, QUICK_DOWN_S = 600.0, 40.0
WATCHED_S = 60.0
AWAY_S = 10.0


class Figure(NamedTuple):
    """A figure of the story; of a count, the unit is empty."""

    what: str
    value: float
    unit: str = "s"


def together(bench: Bench) -> None:
    """Play a bad day over several logins; then count what it left."""
    size, began, lines = _played(bench, _Story.play)
    if bench.docs:
        _document(lines, size, began, bench.docs / "deploy.md")


def takeover(bench: Bench) -> None:
    """Kill the host with the streams, several times."""
    _played(bench, _Story.takeovers)


def _played(
    bench: Bench, play: Callable[["_Story"], Iterator[Figure]]
) -> tuple[Size, str, list[Line]]:
    """Play a story; return its size, the load before it and its figures."""
    size = bench.size(FULL, QUICK)
    if bench.legs:
        size = replace(size, legs=bench.legs[0], active=max(10, bench.legs[0] // 25))
    began = f"{os.getloadavg()[0]:.0f}"
    bench.report.say(f"[dim]{size}; load {began}[/]")
    lines = []
    with Deployment(bench.new_folder("hosts"), size) as deployment:
        story = _Story(deployment, bench.size(DOWN_S, QUICK_DOWN_S), bench.size(3, 1))
        for figure in play(story):
            at = time.monotonic() - deployment.began
            said = quantity(figure.value, figure.unit)
            bench.report.say(f"  [dim]{at:6.0f} s[/]  {figure.what}: {said}")
            load = f"load {os.getloadavg()[0]:.0f}"
            lines.append(Line(what=figure.what, state=load, ours=figure.value, unit=figure.unit))
    bench.report.add(f"{size.logins} logins of {size.legs:,} legs on two hosts", lines)
    return size, began, lines


def _document(lines: Sequence[Line], size: Size, began: str, document: Path) -> None:
    """Replace the table of a document."""
    note = (
        f"{size.logins} logins of {size.legs:,} legs, {size.active} active in each; "
        f"{size.latency_s * 1e3:.0f} ms for each request to the store; {os.cpu_count()} cores; "
        f"load {began} before."
    )
    rows = [[line.what, quantity(line.ours, line.unit), line.state] for line in lines]
    table = markdown_table(["what", "figure", "at a"], rows)
    replace_part(document, "together", f"{note}\n\n{table}")


class _Story:
    def __init__(self, deployment: Deployment, down_s: float, rounds: int) -> None:
        self._all = deployment
        self._down_s = down_s
        self._rounds = rounds
        self._next = 0

    def play(self) -> Iterator[Figure]:
        """Yield each figure when it is known."""
        yield from self._start()
        yield from self._processor()
        yield from self._fills("", self._all.logins)
        yield from self._killed_host()
        yield from self._gateway_down()
        yield from self._postgres()
        yield from self._end()

    def takeovers(self) -> Iterator[Figure]:
        """Yield the figures of several takeovers, one after the other."""
        yield from self._start()
        for _ in range(self._rounds):
            spare, _killed = yield from self._lines_after_kill()
            spare.start(*SERVICES)
            self._all.until("the spare host answers", spare.answers, every_s=0.5)

    def _start(self) -> Iterator[Figure]:
        this = self._all
        this.began = time.monotonic()
        for host in this.hosts.values():
            host.start(*SERVICES)
        this.until("the ledger", this.exists, every_s=0.5)
        for share in (0.25, 0.5, 0.75, 1.0):
            wanted = share * this.legs
            this.until("rows", partial(this.has_rows, wanted), every_s=1)
            yield Figure(f"start to a row of {share:.0%} of the legs", _since(this.began))
        this.until("all lines", lambda: all(map(this.streams, this.logins)), every_s=0.5)
        yield Figure("start to all lines", _since(this.began))
        yield Figure("start to all legs current", self._all_current(this.began))

    def _all_current(self, began: float) -> float:
        def current() -> bool:
            with suppress(LakeError):
                return sum(self._all.current().values()) >= self._all.legs
            return False

        self._all.until("all legs current", current, every_s=2)
        return _since(began)

    def _processor(self) -> Iterator[Figure]:
        this = self._all
        sessions = [this.session(login) for login in this.logins]
        pids = {session.pid for session in sessions if session}
        this.store.proxy.change()
        before, began = used_s(pids), time.monotonic()
        time.sleep(WATCHED_S)
        used = {role: spent - before.get(role, 0.0) for role, spent in used_s(pids).items()}
        took = _since(began)
        requests = len(this.store.proxy.change()) / took
        for role, seconds in sorted(used.items(), key=itemgetter(1), reverse=True):
            what = f"{role}, together" if role == STREAMS else role
            yield Figure(f"share of one core: {what}", seconds / took * 100, "%")
        yield Figure("requests to the store", requests, "/s")

    def _fills(self, when: str, logins: list[Login]) -> Iterator[Figure]:
        for kind in ("streamed", "monitored"):
            took = []
            for _ in range(self._rounds):
                self._next += 1
                for login in logins:
                    book = login.book
                    conids = book.active if kind == "streamed" else book.monitored
                    took.append(self._fill(login, conids[self._next % len(conids)]))
            what = f"fill of a {kind} leg to its row{when}"
            yield Figure(f"{what}, median", statistics.median(took))
            yield Figure(f"{what}, longest", max(took))

    def _fill(self, login: Login, conid: int) -> float:
        key, since = (login.account, conid), utc_now() - timedelta(days=1)
        before = self._all.position(key, since) or 0.0
        quantity = 1.0 if before > 0 else -1.0
        login.fill(conid, quantity)
        return self._all.until(
            f"the row of {key}", lambda: self._all.position(key, since) == before + quantity
        )

    def _killed_host(self) -> Iterator[Figure]:
        spare, killed = yield from self._lines_after_kill()
        yield Figure("kill -9 of a host to all legs current", self._all_current(killed))
        spare.start(*SERVICES)

    def _lines_after_kill(self) -> Generator[Figure, None, tuple[Host, float]]:
        """Kill the host with the streams; return it, the spare one from now on, and when."""
        this = self._all
        before = {login.name: this.session(login) for login in this.logins}
        active = this.active_host()
        began = time.monotonic()
        active.kill()
        pending = list(this.logins)
        while pending:
            for login in list(pending):
                if this.streams(login, after=before[login.name]):
                    pending.remove(login)
                    which = "first" if len(pending) == len(this.logins) - 1 else "last"
                    if which == "first" or not pending:
                        what = f"kill -9 of a host to all lines of the {which} login"
                        yield Figure(what, _since(began))
            time.sleep(0.3)
        return active, began

    def _gateway_down(self) -> Iterator[Figure]:
        this = self._all
        down, others = this.logins[0], this.logins[1:]
        began = time.monotonic()
        down.post("restart", down_s=self._down_s)
        this.until("its legs are not current", lambda: this.current()[down.name] == 0, every_s=1)
        yield Figure("gateway down to its legs not current", _since(began))
        yield from self._fills(" while a gateway is down", others)
        counts = this.current()
        kept = sum(counts[login.name] for login in others)
        yield Figure("legs of the others that are current meanwhile", kept, "")
        this.until("it is up again", lambda: _since(began) >= self._down_s, every_s=0.5)
        up = began + self._down_s
        this.until("it streams", lambda: this.streams(down), every_s=0.5)
        yield Figure("gateway up to all its lines, at most", _since(up))
        yield Figure("gateway up to all legs current", self._all_current(up))

    def _postgres(self) -> Iterator[Figure]:
        this = self._all
        before = {login.name: this.session(login) for login in this.logins}
        with this.database.away():
            took = [self._fill(login, login.book.active[0]) for login in this.logins]
            yield Figure("fill of a streamed leg while Postgres is away, longest", max(took))
            time.sleep(AWAY_S)
        took = [self._fill(login, login.book.monitored[-1]) for login in this.logins]
        yield Figure("Postgres up to the row of a monitored fill, longest", max(took))
        same = sum(
            (session := this.session(login)) is not None
            and (old := before[login.name]) is not None
            and session.session_id == old.session_id
            for login in this.logins
        )
        yield Figure("streams that outlived the restart of Postgres", same, "")

    def _end(self) -> Iterator[Figure]:
        this = self._all
        began, before = time.monotonic(), utc_now()
        this.until("what waits is answered", lambda: waiting(this.lake, before) == 0, every_s=1)
        yield Figure("until all that waited is answered", _since(began))
        for host in this.hosts.values():
            host.stop()
        assert_kept(this.lake, this.logins, before)
        yield Figure("promises broken", 0.0, "")


def _since(began: float) -> float:
    return time.monotonic() - began
