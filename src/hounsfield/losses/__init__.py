"""Pure functions of tensors: the losses of the papers.

- `info_nce` (MoCo v2), `cosine` (BYOL), `swapped` (SwAV), `masked_mse` (SparK).
"""
