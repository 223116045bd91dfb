"""Config groups: their schema, how Hydra composes them, and its errors in one line."""
