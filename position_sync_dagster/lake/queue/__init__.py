"""The queue of positions to be valued: requests, leases, and their table or memory.

Other folders import `position_queue` and `operations`; this package imports the domain
and `lake.storage`, and knows neither the ledger nor the registry.
"""
