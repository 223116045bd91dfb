"""Tasks: read the splits of a data set, make batches of them, and score what a model says."""
