"""The queue of positions to be valued: requests and leases, in a table or in memory.

Other folders import `position_queue` and `operations`; this package imports the domain
and `lake.storage`, and knows neither the ledger nor the registry.
"""
