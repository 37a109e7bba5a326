"""From results to figures and a page; no torch."""
