"""Text for a person at a terminal, or JSON for a program.

Import `board`, `money_tables`, `output` or `text`. The package may import `sync` and what is below
it.
"""
