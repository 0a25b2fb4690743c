"""One Delta table: opening it, transactions on it, its schema, its rows and its maintenance.

The tables of the lake (queue, updates, registry, sessions and the others) import from these
modules; these import `lake/delta_log`, `domain` and `errors`, and no table.
"""
