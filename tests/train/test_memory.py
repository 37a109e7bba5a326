"""A step on the CPU does not ask the system for its memory anew."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from hounsfield.train.memory import keep_freed_memory

torch.set_num_threads(1)
kept = keep_freed_memory() if sys.argv[1] == "kept" else False

def step():
    for _ in range(4):
        torch.ones(12_000_000)  # 46 MiB, above glibc's largest own threshold

for _ in range(5):  # until the heap is as large as it will be
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(which: str) -> tuple[str, int]:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, which], capture_output=True, text=True, check=True
    )
    kept, faults = run.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_pages_of_freed_tensors_are_reused_in_the_next_step() -> None:
    told, without = page_faults("not kept")
    assert told == "False"
    told, with_it = page_faults("kept")
    assert told == "True"
    assert with_it < without / 20
