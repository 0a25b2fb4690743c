"""The tables of the lake: the queue, the ledger of values, the registry, sessions and the others.

`lake.Lake` has all tables at once. Only this package imports `deltalake`; of this project it
imports `domain`, `settings` and `errors`.
"""
