"""Optuna searches better params.yaml values: each trial is a short training of both stages, in its own process."""
