"""Other people's evidence: read from their files, judged by the statistics of our own tables."""
