"""The parts of the page, one a file, in the order in which a reader meets them.

`answer` and `limits`; `curves`, `differences`, `drops`; all `numbers`; `pretraining`, `data`,
`predictions` of single models, `mistakes`; `protocol`, `provenance`.
"""
