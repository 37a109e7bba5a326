"""One thread a test process: tiny networks gain nothing from more, and side by side they starve."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch
