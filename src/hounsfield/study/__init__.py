"""What are the weights worth? Cells, and the plan that names them.

- The plan: `config` is the file, a `task` its labelled images, a `partition` who trains, chooses
  and judges, a `pretraining` what it must not see, `cards` where weights come from; `plan` names
  every cell by its `hashes`. `estimate` says what it takes, `leakage` what judged and seen share.
- The work: `run` leads, a `takeover` spares it what another study has trained, `parallel` shares
  it out, a `worker` does it and leaves `cell_folder`s; `record` is what the study's folder says of
  itself; `pictures` and `saliency` are for the page.
- The protocols: `finetune` (fair), `paper`, `frozen` (linear, kNN, by `features` that are kept);
  `controls` and somebody else's `predictions` are arms without a network.
- What they share: `images` of a task, a `start`, a `classifier`, what is `trained`, its `scores`.
"""
