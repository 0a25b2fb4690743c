"""The stream beside a prototype: ib_async events into a dict, one append a second."""

from benchmarks.stream.latency import latency

TITLE = "The stream"

SECTIONS = {"latency": latency}
