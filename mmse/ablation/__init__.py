"""Ablations: a question as a config, its trials, their statistics and a report."""
