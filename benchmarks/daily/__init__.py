"""The daily positions: a year of past days from statements of the broker; results of campaigns;
what a large ledger costs a reader."""

from benchmarks.daily.backfill import backfill
from benchmarks.daily.reading import reading
from benchmarks.daily.results import results

TITLE = "Daily positions"

SECTIONS = {"backfill": backfill, "results": results, "reading": reading}
