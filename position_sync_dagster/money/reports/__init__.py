"""What is shown: figures, exposure, changes, status, and messages about failed checks.

Read only, and computed from the tables. The modules open no connection.
"""
