"""The checks of the tables.

A check is a function that `evaluation.table_check` decorates: it reads tables and judges what it
read. The driver in `evaluation` evaluates those that are `driven`. The check of days stands with
its asset.
"""
