"""Books of many legs: what a start, a refresh, a fill and a look cost as the book grows."""

from benchmarks.book.batches import batches
from benchmarks.book.profits import profits
from benchmarks.book.tables import tables
from benchmarks.book.whole import whole

TITLE = "Large books"

SECTIONS = {"tables": tables, "batches": batches, "profits": profits, "whole": whole}
