"""A classifier for keeps: trained once, calibrated, used on new scans.

- `finetune` trains it, by `units` that are judged; `calibrate` makes its probabilities;
  `facts` are what it knows of itself; `kept` is what is written and read again.
- `predict` scores new `scans` and goes on from what it has `scored`; a `heatmap` shows where the
  evidence lies.
"""
