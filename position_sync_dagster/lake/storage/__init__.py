"""One Delta table: opening it, transactions on it, the life cycle of its rows, its maintenance.

`table` has the handle, `commits` what a commit checks and writes, `data_files` the choice of files,
`merges` the maintenance, `threads` where blocking work runs.

The tables of the lake (queue, updates, registry, sessions and the others) import from these
modules; these import `lake/schema`, `domain` and `errors`, and no table.
"""
