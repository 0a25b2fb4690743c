"""Start and end the processes of a local installation; nothing here imports Dagster."""
