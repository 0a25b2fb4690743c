"""The audit trail: find everything that belongs to an id, and find missing records.

The commands `trace`, `history` and `audit verify` and the package `defs` import it. It reads the
tables through `lake` and writes nothing: the command writes the records that `verify` derives.
"""
