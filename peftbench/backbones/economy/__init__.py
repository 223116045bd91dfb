"""What spares computing and leaves the mathematics as it is."""
