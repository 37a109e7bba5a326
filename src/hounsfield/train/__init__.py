"""One loop that trains any method.

- A pre-training: `pretrain` leads, with the settings of `papers`, into a `run_folder`;
  `reconstruct` draws what SparK has learnt.
- The loop: `loop` over a `training`, by an `optim`iser on a `schedule`, kept in `checkpoint`s.
- Is it well: `health` looks, a `sentinel` raises the alarm, `faults` of the machine are named,
  an `interrupt` is answered between two steps, `log` talks.
- The machine: `device`, `processes`, `memory`.
"""
