"""Text tasks: reading, tokenizing, batches."""
