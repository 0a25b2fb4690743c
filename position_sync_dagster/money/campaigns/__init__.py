"""Campaigns of strategies, open and closed, and the results that they add up to.

Sums over movements by their owners. The modules may import `past`.
"""
