"""Market data requests: lines, permissions, ticks, and the log of the ticks that were sent.

The gateway and the controls import the service; this package imports clients, books, market and
protocol, and does not know accounts.
"""
