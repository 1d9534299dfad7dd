"""Pruned and packed networks: what goes, what is left behind, and the commands."""
