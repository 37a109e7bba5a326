"""Thumbnails that the study kept, as data inside the page.

`pictures/pictures.json` lists them under `montage`, `reconstructions` and `mistakes`. An entry
names a `file` (PNG, relative to `pictures/`), may name more under the keys of `SHOWN`, and
carries whatever the captions tell: `title`, `text`; for reconstructions `arm`, `run`, `patient`,
`slice`; for mistakes `task`, `arm`, `fraction`, `repeat`, `patient`, `slice`, `label`,
`predicted`, `probability`.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hounsfield.report.study_folder import Study

PNG = b"\x89PNG\r\n\x1a\n"  # what such a file begins with
SHOWN = {  # side by side, in this order, and what each is beside the slice itself
    "file": "",
    "visible": ", with what was hidden in blue",
    "drawn": ", as it was drawn",
    "saliency": ", with what spoke for the answer",
}
LARGEST = 60_000  # bytes of one thumbnail
MOST = 60  # of a list: 60 pairs of 30 kB are 4.8 MB in base 64


@dataclass(frozen=True)
class Picture:
    """Images side by side, each a `data:` address and its words, and what stands below them."""

    images: tuple[tuple[str, str], ...]
    title: str
    text: str


def picture(study: Study, entry: Any, *, title: str = "", text: str = "") -> Picture | None:
    """The picture of an entry, or None where its files are missing, foreign or too large."""
    if not isinstance(entry, Mapping):
        return None
    title = title or str(entry.get("title") or "")
    images = tuple(
        (address, f"CT slice{which}. {title}".strip())
        for key, which in SHOWN.items()
        if (address := _address(study.folder / "pictures", entry.get(key))) is not None
    )
    if not images:
        return None
    return Picture(images, title, text or str(entry.get("text") or ""))


def _address(folder: Path, name: Any) -> str | None:
    """The file as a `data:` address; only images that lie inside `folder`."""
    if not isinstance(name, str):
        return None
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    if path.stat().st_size > LARGEST:
        return None
    content = path.read_bytes()
    if not content.startswith(PNG):
        return None
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
