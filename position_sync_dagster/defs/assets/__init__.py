"""The assets: the tables that Dagster shows, each with its checks; one module for a subject.

`table_asset` holds what all of them share. A module here may import the lake, `sync` and its
neighbours in `defs`; heavy imports belong inside the asset's function.
"""
