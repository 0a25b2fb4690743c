"""Readers that follow the ledger, beside one that reads the table again and again."""

from benchmarks.follow.followed import idle, seen

TITLE = "Following the ledger"

SECTIONS = {"seen": seen, "idle": idle}
