"""From stored scores to intervals and verdicts; no torch.

- `results` leads, from a study's folder to its numbers: `scores` are read, `declared` is what was
  to be asked, `answers` are all numbers of a task, `verdicts` what may be concluded.
- What is asked: `questions`, on a `view` of the scores, by `metrics`; `labels_saved`.
- How sure: `jackknife` intervals, Holm's `family`, the `limits` below which none is printed.
- The next study: `planning`, by `power`.
"""
