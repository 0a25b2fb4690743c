"""The socket protocol of a gateway: frames, requests, messages, codes and contracts; pure.

Every package of the simulator may import it; it imports only the errors, and knows nothing of
books, markets and accounts.
"""
