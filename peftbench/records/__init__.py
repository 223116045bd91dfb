"""Run records: what a run leaves behind, found again and never half-written."""
