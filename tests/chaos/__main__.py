"""The full chaos campaign: `python -m tests.chaos --kills 200 --seed 7`."""

import argparse
import tempfile
from pathlib import Path
from random import SystemRandom

from tests.chaos.campaign import run

parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
parser.add_argument("--kills", type=int, default=200)
parser.add_argument("--seed", type=int, default=None, help="the same seed, the same choices")
given = parser.parse_args()
with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
    seed = SystemRandom().randrange(10**6) if given.seed is None else given.seed
    print(run(Path(folder) / "lake", kills=given.kills, seed=seed))
