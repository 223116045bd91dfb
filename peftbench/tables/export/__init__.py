"""Every form a table is shown or written in."""
