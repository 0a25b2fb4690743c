"""What a browser can reach on this machine: the guard of each port, and Dagster behind it."""
