"""Runs and models in MLflow: the store, what is logged there, and its UI."""
