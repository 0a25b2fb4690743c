"""The gateway: one login that accepts clients and passes each request to a service.

The server and the controls import `Gateway`; this package imports the services of accounts and
market data and everything below them.
"""
