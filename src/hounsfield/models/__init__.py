"""Networks without an objective."""
