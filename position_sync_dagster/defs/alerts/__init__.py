"""The sensor that tells people of checks that break, and of their recovery.

It may import `sync` and its neighbours in `defs`.
"""
