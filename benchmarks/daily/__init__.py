"""The daily positions: a year of past days from statements of the broker."""

from benchmarks.daily.backfill import backfill

TITLE = "Daily positions"

SECTIONS = {"backfill": backfill}
