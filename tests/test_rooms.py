import ast
import re
from pathlib import Path

import pytest

import hounsfield

PACKAGE = Path(hounsfield.__file__).parent
ROOMS = sorted(door.parent for door in PACKAGE.glob("*/**/__init__.py"))


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(PACKAGE)))
def test_a_room_says_at_its_door_what_each_of_its_files_is_for(room: Path) -> None:
    told = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    inside = {path.parent.name for path in room.glob("*/__init__.py")}
    inside |= {path.stem for path in room.glob("*.py")} - {"__init__"}
    assert inside <= set(re.findall(r"`(\w+)`", told))
