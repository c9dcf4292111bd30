"""Metrics of a split, given a model and its variables."""
