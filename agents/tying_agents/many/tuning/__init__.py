"""Sweeps: settings searched with Optuna, judged by validation perplexity."""
