"""A lake in an S3 store at several latencies, beside one on the local disk."""

from benchmarks.store.claimers import claimers
from benchmarks.store.latency import latency
from benchmarks.store.login import login
from benchmarks.store.night import night

TITLE = "A lake in an object store"

SECTIONS = {
    "latency": latency,
    "claimers": claimers,
    "login": login,
    "night": night,
}
