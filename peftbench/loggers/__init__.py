"""Where a run or a table is logged besides its record."""
