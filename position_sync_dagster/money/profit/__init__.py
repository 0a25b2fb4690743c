"""Profit: the explained day, today, and the books of a night.

Profit is an identity of values and movements; its parts explain it and never change it. The
modules may import `past` and `campaigns`.
"""
