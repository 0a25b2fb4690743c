"""The schema of the lake's tables: columns and their types, partitions, ids, rows as values.

Every other module of `lake` may import from here, and so may `defs` and `sync`; these modules
import `domain` and `errors` only.
"""
