"""Which method for a user's own data: staged runs within limits, and an answer."""
