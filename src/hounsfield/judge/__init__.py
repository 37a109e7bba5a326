"""From stored scores to intervals and verdicts; no torch."""
