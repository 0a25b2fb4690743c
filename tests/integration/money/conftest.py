"""The streamer over a simulator that the core's tests have too."""

from tests.integration.sync.conftest import (
    _reconnects_at_once,
    lake,
    running_streamer,
    stream_legs,
    streaming,
)

__all__ = ["_reconnects_at_once", "lake", "running_streamer", "stream_legs", "streaming"]
