"""A program that is supervised in tests: it works, or it ends, as its arguments say."""

import sys
import time
from pathlib import Path

from position_sync_dagster.dagster_host import output_to, process_context, run_forked


def main(sign: str, child: str, *words: str) -> None:
    """Give signs for ever; start another process in the same way before, if `child` is a path."""
    if "fails" in words:
        print("I cannot work\nthe cause of it", flush=True)
        sys.exit(3)
    if child:
        helper = process_context().Process(
            target=run_forked, args=("child", output_to(1, 2), "time", "sleep", 600)
        )
        helper.start()
        Path(child).write_text(str(helper.pid))
    while True:
        Path(sign).touch()
        time.sleep(0.02)
