"""The account feed: positions, portfolio values, P&L, their times, and what of them is confirmed.

`gateway` and `sync` import from here; these modules import the codes, the connectivity, the
translation and ib_async's inside from `gateway`, and `domain`, `settings` and `errors`.
"""
