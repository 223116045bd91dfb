"""The one trainer: it knows a module, batches and metrics, never a method's name."""
