"""Reports that are computed from the tables: status, exposure, trading days, reconciliation.

`defs`, the CLI and the demo may import them. They may import the rest of `sync`, the lake and the
domain, and they open no connection.
"""
