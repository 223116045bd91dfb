"""Tables: from a spec and the run records to figures with their uncertainty, and to every way of showing them."""
