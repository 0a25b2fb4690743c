"""The audit trail on Dagster's side: how runs are recorded, and what the events say.

Assets and ops use `recorded_runs`; `position-sync audit verify` uses `ledger_events`. Both may
import `sync` and the neighbours in `defs`.
"""
