"""One Delta table: opening it, transactions on it, the life cycle of its rows, its maintenance.

The tables of the lake (queue, updates, registry, sessions and the others) import from these
modules; these import `lake/schema`, `domain` and `errors`, and no table.
"""
