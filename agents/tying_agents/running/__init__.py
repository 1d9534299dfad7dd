"""One run: its agent, its directory, its checkpoints, its end."""
