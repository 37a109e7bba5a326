"""The parts of the page, one a file, in the order in which a reader meets them."""
