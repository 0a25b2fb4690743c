"""The queue and the ledger beside a naive queue, SQLite, bare Delta commits, Parquet, DuckDB."""

from benchmarks.queue.contention import claimers
from benchmarks.queue.durability import durability
from benchmarks.queue.flatness import flatness
from benchmarks.queue.growth import growth
from benchmarks.queue.ledger import appends
from benchmarks.queue.newest import newest
from benchmarks.queue.quiet import quiet
from benchmarks.queue.small_operation import small_operation
from benchmarks.queue.speed import speed

TITLE = "The queue and the ledger"

SECTIONS = {
    "small": small_operation,
    "speed": speed,
    "flatness": flatness,
    "claimers": claimers,
    "durability": durability,
    "ledger": appends,
    "newest": newest,
    "quiet": quiet,
    "growth": growth,
}
