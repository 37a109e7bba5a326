"""A backbone or a classifier out, with what another program needs to use it rightly."""
