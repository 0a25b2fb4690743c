"""Enqueue, claim, mark and count, at several histories, beside four other ways."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from benchmarks.queue.bare_commits import BareCommits, written_frames
from benchmarks.queue.contestant import drain
from benchmarks.queue.history import lake_of_commits, lake_of_finished
from benchmarks.queue.lake_queue import LakeQueue
from benchmarks.queue.naive_queue import NaiveQueue
from benchmarks.queue.sqlite_queue import SqliteQueue
from benchmarks.timing import Samples

BATCHES = 3
CLAIM_AND_MARK = "claim 50 + mark 50"

# The naive queue is spared the rest: at 10,000 one of its drains takes minutes.
NAIVE_COMMITS = 1_000


@dataclass
class State:
    """One history, and the queues that have it."""

    name: str
    ours: LakeQueue
    naive: NaiveQueue
    kept: SqliteQueue
    note: str = ""
    samples: dict[str, Samples] = field(default_factory=dict)

    def of(self, contestant: str) -> Samples:
        """Give the samples of a contestant."""
        return self.samples.setdefault(contestant, Samples())


def speed(bench: Bench) -> None:
    """Measure at 0, 100k and 1M finished requests and after 10,000 commits."""
    frames = written_frames(bench.new_folder("frames"), BATCHES)
    bare = BareCommits(bench.new_folder("bare"), frames)
    cleared = SqliteQueue(bench.new_folder("sqlite-cleared"))
    rounds, slow_rounds = bench.size(20, 3), bench.size(2, 1)
    for make in _states(bench):
        state = make()
        for turn in range(rounds):
            drain(state.ours, state.of("ours"), batches=BATCHES)
            cleared.clear()
            drain(cleared, state.of("cleared"), batches=BATCHES)
            bare.renew()
            drain(bare, state.of("bare"), batches=BATCHES, rest=False)
            if turn < slow_rounds:
                drain(state.kept, state.of("kept"), batches=1, rest=False)
                drain(state.naive, state.of("naive"), batches=1, rest=False)
        bench.report.add(f"Speed, {state.name}", _lines(state), state.note)


def _lines(state: State) -> list[Line]:
    both, faster, bound = ("claim", "mark"), Target(faster=100), Target(ratio=2)
    wanted: list[tuple[str, tuple[str, ...], str, str, Target | None]] = [
        (CLAIM_AND_MARK, both, "naive", "naive queue", faster),
        (CLAIM_AND_MARK, both, "cleared", "persist-queue, cleared", bound),
        (CLAIM_AND_MARK, both, "kept", "persist-queue, same past", None),
        (CLAIM_AND_MARK, both, "bare", "the two commits, bare", Target(ratio=1.5)),
        ("claim 50", ("claim",), "bare", "its commit, bare", None),
        ("mark 50", ("mark",), "bare", "its commit, bare", None),
        ("enqueue 180", ("enqueue",), "cleared", "persist-queue, cleared", Target(faster=5)),
        ("enqueue 180", ("enqueue",), "naive", "naive queue", None),
        ("enqueue 180", ("enqueue",), "bare", "its commit, bare", None),
        ("counts", ("counts",), "kept", "persist-queue, same past", Target(value=10)),
        ("counts", ("counts",), "naive", "naive queue", None),
    ]
    ours = state.of("ours")
    return [
        Line(
            what=what,
            state=state.name,
            ours=ours.median(*names),
            samples=len(ours.of(*names)),
            against=against,
            theirs=state.of(contestant).median(*names),
            target=target,
        )
        for what, names, contestant, against, target in wanted
    ]


def _states(bench: Bench) -> list[Callable[[], State]]:
    histories = bench.size((0, 100_000, 1_000_000), (0, 2_000, 20_000))
    commits = bench.size(10_000, 100)
    finished = [partial(_finished, bench, rows) for rows in histories]
    return [*finished, partial(_committed, bench, commits)]


def _finished(bench: Bench, rows: int) -> State:
    naive = NaiveQueue(bench.new_folder("naive"))
    kept = SqliteQueue(bench.new_folder("sqlite"))
    if rows:
        naive.write_history(rows)
        kept.write_history(rows)
    return State(f"{rows:,} finished", lake_of_finished(bench, rows), naive, kept)


def _committed(bench: Bench, commits: int) -> State:
    naive = NaiveQueue(bench.new_folder("naive"))
    kept = SqliteQueue(bench.new_folder("sqlite"))
    ours = lake_of_commits(bench, commits)
    naive.write_history(commits, commits=min(commits, NAIVE_COMMITS))
    kept.write_history(sum(ours.counts().values()))
    note = f"The naive queue: after {min(commits, NAIVE_COMMITS):,} commits."
    return State(f"after {commits:,} commits", ours, naive, kept, note)
