"""What tests of every folder of this tier may need: a recorder in front of a simulator."""

from contextlib import asynccontextmanager
from random import Random

import pytest

from ib_gateway_simulator.recording.proxy import Proxy
from ib_gateway_simulator.recording.recorder import Recorder


@pytest.fixture
def recorded(tmp_path):
    """Run a recorder in front of a simulator, and give the test its port and its file."""

    @asynccontextmanager
    async def run(port, name="session.ibrec", **options):
        path = tmp_path / name
        with Recorder(path, random=Random(5), **options) as recorder:
            async with Proxy(recorder, ("127.0.0.1", port)) as proxy:
                proxy.path, proxy.recorder = path, recorder
                yield proxy

    return run
