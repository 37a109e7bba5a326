"""Thumbnails that the study kept, as data inside the page.

`pictures/pictures.json` lists them under `montage`, `reconstructions` and `mistakes`. An entry
names a `file` (PNG or JPEG, relative to `pictures/`), may name a second one as `saliency`, and
carries whatever the captions tell: `title`, `text`, and for mistakes `task`, `arm`, `fraction`,
`repeat`, `patient`, `slice`, `label`, `predicted`, `probability`.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hounsfield.report.study_folder import Study

KINDS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}
LARGEST = 60_000  # bytes of one thumbnail
MOST = 60  # of a list: 60 pairs of 30 kB are 4.8 MB in base 64


@dataclass(frozen=True)
class Picture:
    """One or two images side by side, as `data:` addresses, and what stands below them."""

    images: tuple[str, ...]
    title: str
    text: str
    alt: str


def picture(study: Study, entry: Any, *, title: str = "", text: str = "") -> Picture | None:
    """The picture of an entry, or None where its file is missing, foreign or too large."""
    if not isinstance(entry, Mapping):
        return None
    sources = [_address(study.folder / "pictures", entry.get(key)) for key in ("file", "saliency")]
    if sources[0] is None:
        return None
    title = title or str(entry.get("title") or "")
    text = text or str(entry.get("text") or "")
    images = tuple(source for source in sources if source is not None)
    return Picture(images, title, text, alt=f"CT slice. {title}".strip())


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
    kind = next((kind for sign, kind in KINDS.items() if content.startswith(sign)), None)
    return f"data:{kind};base64,{base64.b64encode(content).decode()}" if kind else None
