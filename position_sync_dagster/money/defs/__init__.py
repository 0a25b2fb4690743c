"""The Dagster definitions of money: its assets, checks, sensors and schedules.

The component loads every module here. They have no logic of their own.
"""
