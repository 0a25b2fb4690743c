"""How fast the system is, beside what else could do its work; `make bench` runs it.

A part is a subpackage with a `TITLE` and `SECTIONS` (name to function of a `Bench`); it is found by
being there. Nothing here asserts a time: targets are shown with what was measured.
"""
