"""The whole program as a person runs it: Dagster, stream, drains and simulator together."""

from benchmarks.program.latency import latency
from benchmarks.program.rest import rest

TITLE = "The whole program"

# From something that happens to the row that tells it, and what it costs while nothing does.
SECTIONS = {"latency": latency, "rest": rest}
