"""Insert 50, claim 50, mark 50: this checkout and another one, turn by turn in the same minutes.

Each checkout runs in a process of its own, with this file as its program. It answers each line of
its input with the milliseconds of one round, as JSON. The program uses only public names, which
every release has.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:  # another checkout runs this file, and has other benchmarks
    from benchmarks.bench import Bench

WARM_UP, BATCH = 15, 50
INSERT, CLAIM, MARK = "insert 50", "claim 50", "mark 50"
STEPS = ((INSERT,), (CLAIM,), (MARK,), (CLAIM, MARK))

Times = dict[str, float]


def small_operation(bench: "Bench") -> None:
    """Time the steps on 50 requests; with `--against FOLDER` those of that checkout too."""
    from benchmarks.outcome import Line

    roots = [Path(__file__).parents[2], *([bench.against] if bench.against else [])]
    with ExitStack() as stack:
        turns = [stack.enter_context(checkout(root, bench.folder)) for root in roots]
        rounds = [[turn() for turn in turns] for _ in range(bench.size(200, 3))]
    lines = []
    for steps in STEPS:
        sums = [[sum(times[step] for step in steps) for times in each] for each in rounds]
        ours, *theirs = (median(of_one) for of_one in zip(*sums, strict=True))
        lines.append(
            Line(
                what=" + ".join(steps),
                state="nothing else waits",
                ours=ours,
                samples=len(rounds),
                against=str(bench.against or ""),
                theirs=theirs[0] if theirs else None,
            )
        )
    bench.report.add("The small operation", lines)


@contextmanager
def checkout(root: Path, folder: Path) -> Iterator[Callable[[], Times]]:
    """Start the program with the package of a checkout; yield a function that runs one round.

    Args:
        root: Its own `.venv` is used if it has one, else the interpreter of this process.
        folder: Where its queue lies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = root / ".venv/bin/python"
    process = subprocess.Popen(
        [str(own) if own.exists() else sys.executable, "-P", __file__, str(folder)],
        env=os.environ | {"PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def turn() -> Times:
        _pipe(process.stdin).write("\n")
        _pipe(process.stdin).flush()
        found: Times = json.loads(_pipe(process.stdout).readline())
        return found

    try:
        yield turn
    finally:
        process.communicate()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def main() -> None:
    """Answer each line with the times of one round."""
    from position_sync_dagster import PositionQueue, QueueRequest, Reason

    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
        queue = PositionQueue(Path(folder) / "position_queue").sync
        queue.initialize()
        requests = [
            QueueRequest(700_000_000 + n, f"SYM{n % 40}", 2, "DUSIM0001", Reason.REFRESH)
            for n in range(BATCH)
        ]

        def one_round() -> Times:
            began = time.perf_counter()
            queue.insert_many(requests)
            inserted = time.perf_counter()
            claimed = queue.claim_batch(BATCH)
            marked = time.perf_counter()
            assert len(claimed) == BATCH
            queue.mark_success([request.request_id for request in claimed])
            ended = time.perf_counter()
            return {
                INSERT: (inserted - began) * 1000,
                CLAIM: (marked - inserted) * 1000,
                MARK: (ended - marked) * 1000,
            }

        for _ in range(WARM_UP):
            one_round()
        for _ in sys.stdin:
            sys.stdout.write(json.dumps(one_round()) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
