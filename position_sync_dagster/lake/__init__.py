"""Everything that knows Delta Lake: tables, the registry, the queue, the ledger, maintenance."""
