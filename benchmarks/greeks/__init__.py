"""The modelled greeks: their error against the simulator's market, and their processor time."""

from benchmarks.greeks.accuracy import errors

TITLE = "Greeks of options without a line"

SECTIONS = {"errors": errors}
