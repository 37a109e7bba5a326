"""What the site has beyond the files of docs/: pages from elsewhere, and links that fit them.

Links in the pages are those of a checkout, so that they work where the repository is read. On the
site a link to a page leads to the page; a link to a file that has no page becomes plain text.
"""

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "index.md": "README.md",
    "first_study_plan.md": "examples/first_study/PLAN.md",
    "figures/first_study_ich.png": "examples/first_study/results/ich/curve-ich-fair-slice.png",
    "figures/first_study_sts.png": "examples/first_study/results/sts/curve-sts-fair-slice.png",
    "real_ct.md": "examples/real_ct/README.md",
    "benchmarks.md": "benchmarks/RESULTS.md",
}
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s:]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of docs/ and those of `ELSEWHERE`."""
    for uri, source in ELSEWHERE.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links led to pages of the site."""
    uri = page.file.src_uri
    folder = (ROOT / ELSEWHERE.get(uri, f"docs/{uri}")).parent

    def relinked(link: re.Match[str]) -> str:
        text, target, anchor = link.groups(default="")
        there = Path(os.path.normpath(folder / target))
        if not there.exists():
            return link[0]  # the builder says that it is broken
        found = _uri(there)
        if files.get_file_from_path(found) is None:
            return text
        return f"[{text}]({os.path.relpath(found, PurePosixPath(uri).parent)}{anchor})"

    return LINK.sub(relinked, markdown)


def _uri(there: Path) -> str:
    """Where a file of the repository, or a folder's README, stands on the site."""
    there = there / "README.md" if there.is_dir() else there
    path = there.relative_to(ROOT).as_posix()
    pages = {source: uri for uri, source in ELSEWHERE.items()}
    return pages.get(path, path.removeprefix("docs/"))
