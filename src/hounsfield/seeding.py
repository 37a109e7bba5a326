"""Named random streams: chance is a function of a seed and a purpose, never of what ran before.

Nothing is ever drawn from a global generator, and no generator's state is ever stored: a run that
goes on after a crash asks for the stream of step 1000 by name and gets what it would have got.
"""

import hashlib

import numpy as np


def seed_of(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for `purpose` under `seed`; equal arguments give equal seeds, everywhere.

    Args:
        seed: The user's seed.
        *purpose: What the chance is for, from the general to the particular, for example
            `"views", step`.
    """
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in purpose)])
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def stream(seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy generator for `purpose` under `seed` (PCG64).

    For torch, seed a generator of your own: `torch.Generator(device).manual_seed(seed_of(...))`.
    """
    return np.random.default_rng(seed_of(seed, *purpose))
