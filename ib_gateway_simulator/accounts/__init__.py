"""The accounts of a simulated login: positions, account data, profits and losses.

The gateway imports the ledger and the two services of `account_data` and `profit_and_loss`, the
controls import settings and rows; this package imports clients, books, market and protocol, and
does not know market data lines.
"""
