"""The assets: one module for each table that Dagster shows, named like the table.

`table_asset` holds what all of them share. A module here may import the lake, `sync` and its
neighbours in `defs`; heavy imports belong inside the asset's function.
"""
