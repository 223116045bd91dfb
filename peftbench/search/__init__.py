"""Hyper-parameter search: from a search space to trials, and from their scores to the one that wins."""
