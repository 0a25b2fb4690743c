"""What a process with a gateway imports."""

import subprocess
import sys

WITHOUT_NUMPY = """
import sys
from position_sync_dagster.gateway.connection import GatewayConnection

assert "ib_async" in sys.modules
assert not [name for name in sys.modules if name.partition(".")[0] == "numpy"]

import numpy

assert numpy.asarray([1, 2]).sum() == 3
"""


def test_a_gateway_needs_no_numpy_and_whoever_does_gets_it():
    subprocess.run([sys.executable, "-c", WITHOUT_NUMPY], check=True)
