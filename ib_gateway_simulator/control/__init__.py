"""The controls of a running simulator: readings, trades and faults, over HTTP and by scenario.

Only the server and the program import it; it imports the gateway and everything below.
"""
