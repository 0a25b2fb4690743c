"""The private symbols of Dagster that `defs` uses. It imports Dagster alone."""
