"""The Hydra config groups; this file makes the folder a package that Hydra finds."""
