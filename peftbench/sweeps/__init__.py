"""What a table still lacks, and training and measuring it."""
