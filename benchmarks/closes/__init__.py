"""Closes: what one more close costs after a year of them."""

from benchmarks.closes.growth import growth

TITLE = "Closes"

SECTIONS = {"growth": growth}
