"""What every test process needs before the first test."""

import os
import signal

# Tiny networks gain nothing from more threads, and side by side they starve. Torch reads this once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A suite that was started in the background has Ctrl-C ignored; tests of Ctrl-C, and the processes
# that they start, need it back.
signal.signal(signal.SIGINT, signal.default_int_handler)
