"""A year of an options book: sessions of a simulated broker, each played through the whole program.

`exchanges` has the days of two exchanges, written by hand. `market` has prices, `broker` the books
of the broker and its statements, `book` the strategies that are opened and rolled by rule, and
`events` what else happens. `gateway` serves the broker's holdings over a real socket, `programs`
has Dagster's own daemon functions and the stream, and `play` lets the sessions pass by a clock that
is moved by hand. `invariants` and `profits` compare the program's tables with the broker's books
each day, `growth` measures what grows, and `faults` plants errors that must be found.
"""
