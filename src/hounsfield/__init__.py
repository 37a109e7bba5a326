"""Few labels, many scans: self-supervised pre-training on CT, compared fairly."""

__version__ = "0.1.0"
