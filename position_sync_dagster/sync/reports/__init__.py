"""Reports that are computed from the tables: status, exposure, trading days, reconciliation.

They may be imported by `defs`, the CLI and the demo. They may import everything else of `sync`,
the lake and the domain, and they open no connection of their own.
"""
