"""The embeddings of the latest images, first in, first out."""

import torch
from torch import Tensor, nn


class Queue(nn.Module):
    """A ring of the latest `size` embeddings.

    The place and the count are plain numbers, so asking for them waits for no device; they travel
    in the state dict like everything that must survive a crash.

    Attributes:
        rows: `(size, dim)`; random directions at first.
        filled: How many of the rows have been given.
    """

    rows: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", nn.functional.normalize(torch.randn(size, dim), dim=1))
        self.filled = 0
        self._next = 0

    @property
    def full(self) -> bool:
        """Whether every row has been given."""
        return self.filled == len(self.rows)

    @torch.no_grad()
    def put(self, embeddings: Tensor) -> None:
        """Replace the oldest rows by `embeddings` `(batch, dim)`; of too many, the last stay."""
        size = len(self.rows)
        fresh = embeddings[-size:].to(self.rows.dtype)
        place = (torch.arange(len(fresh), device=fresh.device) + self._next) % size
        self.rows.index_copy_(0, place, fresh)
        self._next = (self._next + len(fresh)) % size
        self.filled = min(size, self.filled + len(fresh))

    def get_extra_state(self) -> Tensor:
        """Count and place, for the state dict."""
        return torch.tensor([self.filled, self._next])

    def set_extra_state(self, state: Tensor) -> None:
        """Count and place, from a state dict."""
        self.filled, self._next = state.tolist()
