"""One image to views, on the device, one draw per sample.

- `views`: the recipes by name; `published`: those of the published comparison.
- `recipe`: what a recipe is: a `geometry` and an `intensity` a view.
- `ops`: the pure functions below, and the samplers of their parameters.
"""
