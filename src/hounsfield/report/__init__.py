"""From results to figures and a page; no torch.

- `make` leads: `study_folder` is read, `parts` make the sections of the page (`html`), `beside` it
  lie figures, tables (`latex`) and `methods` with the `checklist`; `table` is for the terminal.
- Numbers: `points`, and the `quality` of a single model; `words` says them.
- Figures: `panels`, `drawing`, `style`, the `palette` of the arms; thumbnails are `pictures`.
"""
