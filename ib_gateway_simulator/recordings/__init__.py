"""Recordings of sessions between clients and a gateway, as files (docs/recording.md).

The replay and the package `recording` import this; it imports the protocol and the errors only.
"""
