"""The stream beside a prototype: ib_async events into a dict, one append a second."""

from benchmarks.stream.latency import latency
from benchmarks.stream.recorded import recorded

TITLE = "The stream"

SECTIONS = {"latency": latency, "recorded": recorded}
