"""One run: execute it, record it, find it again."""
