"""Trained adapters: storing them, loading them back onto a backbone, predicting."""
