"""The ledger of values, `position_updates`: checked, appended once per id, read by holding.

Other folders import `position_updates`; this package imports the domain and
`lake.storage`, and knows neither the queue nor the registry.
"""
