"""The accounts of a simulated login: positions, account data, profits and losses.

The gateway and the controls import the ledger and the two services; this package imports
clients, books, market and protocol, and does not know market data lines.
"""
