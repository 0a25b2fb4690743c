"""The checks of the tables: one module for each check, named like the check.

Each module holds the check and the pure function that judges what the check has read. It may
import the domain, `sync` and its neighbours in `defs`.
"""
