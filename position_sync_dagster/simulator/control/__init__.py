"""The controls of a running simulator: what can be read and done, over HTTP and by scenarios.

Only the server and the program import it; it imports the gateway and everything below.
"""
