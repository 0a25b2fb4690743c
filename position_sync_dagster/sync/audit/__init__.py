"""The audit trail: from an id to everything that belongs to it, and what the records lack.

The commands `trace`, `history` and `audit verify` and the package `defs` import it. It reads the
tables through `lake`; only `repair` writes, and nothing but the table `runs`.
"""
