"""Programs of a deployment on several hosts, beside those of Dagster itself.

Each is a program of its own: it imports Dagster, and nothing imports it.
"""
