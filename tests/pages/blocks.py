"""The code blocks of a page, and what a reader would type of them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_BLOCK = re.compile(
    r'(?P<skip><!-- not run: [^\n]+ -->\n)?^```(?P<kind>\w+)(?: title="(?P<title>[^"]+)")?\n'
    r"(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A code block: its language, the file that it is to be saved as, whether it is run."""

    kind: str
    title: str
    text: str
    run: bool


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in its order."""
    found = _BLOCK.finditer(page.read_text())
    return [Block(one["kind"], one["title"] or "", one["text"], not one["skip"]) for one in found]


def commands(block: Block) -> list[tuple[str, str]]:
    """What is typed after every `$`, continued lines joined, and what the page says comes out."""
    text = block.text.replace("\\\n", " ")
    return [
        (typed.strip(), out)
        for typed, out in re.findall(r"^\$ (.+)\n((?:[^$].*\n|\n)*)", text, re.M)
    ]


def matches(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed; `...` is any text, on a line of its own any lines."""
    pattern = "".join(
        "(?s:.*)" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r" *\n"
        for line in shown.splitlines()
    )
    return re.fullmatch(pattern, printed) is not None
