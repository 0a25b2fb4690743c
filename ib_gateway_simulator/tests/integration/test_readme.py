"""The example of the simulator's README runs as it stands; its test is in `test_plugin.py`."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[3] / "ib_gateway_simulator" / "README.md"


def test_the_example_runs_as_it_stands():
    _test, example = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "200 positions\n", done.stderr
