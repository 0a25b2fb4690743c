"""The money page: one window in a browser that shows what the account is worth now.

`money_page.py` has the routes and the feed, and is light to import; `served_figures.py` reads the
lake, and is imported when somebody opens the page. `static/` is what the browser gets.
"""
