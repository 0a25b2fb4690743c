"""What the broker did: statements, movements, causes of closes, and whose each movement is.

Each source is read once, at the edge, into movements; the rest judges them. It may import the
core and no other folder of money.
"""
