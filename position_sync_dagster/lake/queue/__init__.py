"""The queue of positions to be valued: requests, leases, and their table or memory.

Other folders import `table`, `memory`, `operations` and `overview`; this package imports the domain
and `lake.storage`, and knows neither the ledger nor the registry.
"""
