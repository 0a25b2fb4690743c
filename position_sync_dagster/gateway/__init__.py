"""Everything that knows ib_async: connections, the account feed, market data lines, translation.

`sync` may import any module of it but `ib_async_internals`; it imports `domain`, `settings`,
`errors` and `outage_log`, never `lake`, `sync` or Dagster.
"""
