"""Which method, which size of it: from what was measured, beside what the lab and the literature say."""
