"""From a model's or task's source to verified files on this machine."""
