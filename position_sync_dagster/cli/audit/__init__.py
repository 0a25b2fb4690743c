"""The commands of the audit trail: `trace`, `history` and `audit verify`, one module each.

They read through `sync.audit`. Only `audit verify` imports `defs`, when it runs: Dagster's events
are read there.
"""
