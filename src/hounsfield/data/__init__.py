"""From files to tensors; knows no method.

- Files to a store: `ingest` leads. `archive` finds files, `series` groups their headers, `readers`
  make a `volume` of them, `resample` cuts it to size, `convert` keeps it as a part, by `workers`
  that may die; `identify` finds patients and `labels`, `assemble` writes the store.
- Whose they are: `keys` hash identities; a `refusal` says why a file stays out, `refused`
  lists them all.
- A store: `store`, `store_writer`, what it holds (`info`), fewer slices of it (`thin`, by
  `likeness`), what two share (`leaks`).
- Out of a store: `split`s and ladders of patients, `batches`, the `window` of HU.
- `phantom`: synthetic CT for the demo and the tests.
"""
