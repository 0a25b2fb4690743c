"""The checks of the asset `position_queue`: one module for each check, named like the check.

They may import the domain, the lake and their neighbours in `defs`.
"""
