"""The money page: one window in a browser that shows what the account is worth now.

`money_page.py` has the routes; `served_figures.py` reads the lake when somebody opens the page.
`pages/` and `static/` are what the browser gets.
"""
