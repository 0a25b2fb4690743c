"""Steps with very many ids: none of them ends the process."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

COUNT = 40_000
"""Requests; a predicate that named each of them ended the process at 20,000 to 30,000."""


def test_forty_thousand_requests_are_read_retried_and_marked(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.many_requests", tmp_path / "queue", str(COUNT)],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "whole"), done.stderr[-2000:]
