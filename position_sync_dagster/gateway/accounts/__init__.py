"""The account feed: positions, portfolio values, P&L, their times and their confirmations.

`gateway` and `sync` import from here; these modules import codes, connectivity, translation and
`ib_async_internals` from `gateway`, and `domain`, `settings` and `errors`.
"""
