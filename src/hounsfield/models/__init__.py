"""Networks without an objective.

- `backbone`: timm's networks by name; `heads`, `decoder`, `queue`, slow copies (`ema`) around it.
- Visible patches only: `tiles`, on the `layout` of what is visible.
- Several processes as one: `gather`.
- Weights from outside: `weights_source` finds a file, `weights_file` reads it, `fit` matches its
  names to a network's, `pretrained` fills a backbone, `recognise` says what a file is.
- Weights of ours are `weights_written`, the same bytes for the same content.
- `probe`: what frozen features are worth.
"""
