"""Pure decisions: when to drain, when to start a stream, and whether the broker's data is current.

Each module may be imported by the drain, the reports and `defs`. They import the domain and the
settings only: no table, no connection and no Dagster, so every case is tested with plain values.
"""
