"""Moving from other packages."""
