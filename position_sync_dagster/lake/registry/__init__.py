"""The registry of active strategies: rules for legs, the YAML file, and the table.

Other folders import `strategy_registry` and `strategies_file`; this package imports the domain and
`lake.storage`, and knows neither the queue nor the ledger.
"""
