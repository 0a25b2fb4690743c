"""The simulated market: random walks, option prices and the quotes that follow from them.

Everything above may import it; it imports only the contracts of protocol, and does not know
clients or lines.
"""
