"""Networks of runs on downstream tasks."""
