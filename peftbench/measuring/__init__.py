"""Parameters, latency and memory."""
