"""Replay of a recording to any client that makes the same requests.

The program imports the server here; this package imports the recordings, the connection of a
client and the protocol, and nothing of the simulated market.
"""
