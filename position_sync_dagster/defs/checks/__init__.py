"""The checks of the tables: one module for each subject.

A check is a function that `check_results.table_check` decorates: it reads the tables, and a pure
function judges what was read. `evaluation` lists the checks that drains and streams evaluate. The
checks of days, closes and statements stand with their assets. A module here may import the domain,
`sync` and its neighbours in `defs`.
"""
