"""The daily positions: a year of past days from statements of the broker; results of campaigns."""

from benchmarks.daily.backfill import backfill
from benchmarks.daily.results import results

TITLE = "Daily positions"

SECTIONS = {"backfill": backfill, "results": results}
