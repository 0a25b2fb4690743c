"""Text for a person at a terminal, or JSON for a program.

Import `output`, `status_lines` or `text`. The package may import `sync` and what is below it.
"""
