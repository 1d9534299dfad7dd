"""Experiment trackers as callbacks: Weights & Biases, MLflow, Trackio; each is an extra to install.

layer-tying run --callbacks tying_agents.trackers.mlflow:MlflowTracker
"""
