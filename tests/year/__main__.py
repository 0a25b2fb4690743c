"""Play a year of sessions: `python -m tests.year --seed 7 --until 2027-03-12`."""

import argparse
import logging
import sys
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path

from tests.year import growth
from tests.year.exchanges import FIRST
from tests.year.faults import PLANTS
from tests.year.play import Plan, play

# The change of the clocks in New York, and the first day after 90 days, are in it.
A_QUARTER = date(2027, 3, 19)

parser = argparse.ArgumentParser(prog="year", description=__doc__)
parser.add_argument("--seed", type=int, default=1, help="the same seed, the same year")
parser.add_argument("--until", type=date.fromisoformat, default=A_QUARTER, help="the last day")
parser.add_argument("--strategies", type=int, default=40)
parser.add_argument("--plant", choices=sorted(PLANTS), default=None, help="an error to be found")
parser.add_argument("--growth", type=Path, default=None, help="where the table of growth is put")
parser.add_argument("--home", type=Path, default=None, help="a new folder, which is kept")


def main() -> int:
    """Play, print each session, and return 1 if anything deviated."""
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    plan = Plan(seed=args.seed, until=args.until, strategies=args.strategies, plant=args.plant)
    # A thread of a library may still write into the home while it is removed.
    with tempfile.TemporaryDirectory(
        prefix="year-", dir=_memory(), ignore_cleanup_errors=True
    ) as folder:
        played = play(plan, args.home or Path(folder, "home"), say=say)
    used = time.process_time()
    say(
        f"{played.sessions} sessions since {FIRST}, {len(played.deviations)} deviations, "
        f"{used:.0f} s of processor"
    )
    if args.growth is not None:
        growth.write(played.growth, args.growth)
        growth.draw(args.growth, args.growth.with_suffix(".png"))
    if args.plant is None:
        return 1 if played.deviations else 0

    invariants = sorted({deviation.invariant for deviation in played.deviations})
    on = "no day"
    if invariants:
        on = played.results[-1].split()[0]

    say(f"{args.plant}, planted on {played.planted_on}, found on {on} by: {', '.join(invariants)}")
    return 0 if invariants else 1


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108


if __name__ == "__main__":
    sys.exit(main())
