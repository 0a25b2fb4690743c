"""What a book is worth in another market, what expires, and where a profit came from.

Pure functions over frames and arrays; they read no table. `model` is the one home of the option
model. Nothing of it is used for a price of the ledger.
"""
