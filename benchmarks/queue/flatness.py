"""Our queue against itself: with a long past against none, turn by turn in the same minutes."""

from benchmarks.bench import Bench
from benchmarks.outcome import Line, Target
from benchmarks.queue.contestant import drain
from benchmarks.queue.history import lake_of_commits, lake_of_finished
from benchmarks.queue.lake_queue import LakeQueue
from benchmarks.queue.speed import CLAIM_AND_MARK
from benchmarks.timing import Samples

STEPS: dict[str, tuple[str, ...]] = {
    CLAIM_AND_MARK: ("claim", "mark"),
    "enqueue 180": ("enqueue",),
    "counts": ("counts",),
}


def flatness(bench: Bench) -> None:
    """Compare 1M finished requests with none, and 10,000 commits with 100."""
    many, few = bench.size((1_000_000, 0), (20_000, 0))
    _compare(
        bench,
        f"{many:,} finished",
        lake_of_finished(bench, many),
        f"{few:,} finished",
        lake_of_finished(bench, few),
    )
    long, short = bench.size((10_000, 100), (100, 20))
    for hurried, pace in ((False, "at their pace"), (True, "within minutes")):
        _compare(
            bench,
            f"{long:,} commits {pace}",
            lake_of_commits(bench, long, hurried=hurried),
            f"{short:,} commits",
            lake_of_commits(bench, short),
        )


def _compare(bench: Bench, name: str, old: LakeQueue, other: str, young: LakeQueue) -> None:
    old_samples, young_samples = Samples(), Samples()
    for _ in range(bench.size(40, 3)):
        drain(old, old_samples)
        drain(young, young_samples)
    lines = [
        Line(
            what=what,
            state=name,
            ours=old_samples.median(*names),
            samples=len(old_samples.of(*names)),
            against=f"ours, {other}",
            theirs=young_samples.median(*names),
            target=Target(ratio=1.2),
        )
        for what, names in STEPS.items()
    ]
    bench.report.add(f"Flatness, {name} to {other}", lines)
