"""Messages to people when a check breaks and when it passes again.

`breaks` decides what is told and to whom it is still to be sent; `delivery` sends it. They import
the domain, the settings and `apprise`, and nothing of Dagster.
"""
