"""What is recorded beside positions: accounts, the steps of runs, and the broker's statements.

Import from the modules. They may import only the standard library and other modules of `domain`.
"""
