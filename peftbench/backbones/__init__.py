"""Pretrained encoders: loading them, naming their sites, running them no more expensively than needed."""
