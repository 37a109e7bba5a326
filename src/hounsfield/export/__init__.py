"""A backbone or a classifier out, with what another program needs to use it rightly.

- `make` leads: `network` is what goes out, `formats` are the ways, `card` is the model card.
"""
