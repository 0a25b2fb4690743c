"""A world of its own beside the ledger of postings: a broker, and a bookkeeper who knows the truth.

`broker` and `bookkeeper` say what happened and what follows from it, by the rules of results.md;
`stories` makes it happen; `writers` writes it down as the broker does; `product` reads what the
program makes of it. The first three import nothing of the program.
"""
