"""The modelled greeks: their error against the simulator's market, and their processor time."""

from benchmarks.greeks.accuracy import errors
from benchmarks.greeks.pace import passes

TITLE = "Greeks of options without a line"

SECTIONS = {"errors": errors, "passes": passes}
