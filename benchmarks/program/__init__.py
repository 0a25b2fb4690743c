"""The whole program as a person runs it: Dagster, stream, drains and simulator together."""

from benchmarks.program.latency import latency

TITLE = "The whole program"

SECTIONS = {"latency": latency}
