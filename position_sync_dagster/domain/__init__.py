"""Frozen values and pure decisions: prices, routes, lines, retries, reconciliation.

Every other package may import any module of it; it imports the standard library and `errors` only.
"""
