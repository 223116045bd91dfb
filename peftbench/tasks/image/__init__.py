"""Tasks whose examples are images with a class each."""
