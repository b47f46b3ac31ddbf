"""Who may import whom, and that no two files have one name."""

import ast
from collections import Counter
from pathlib import Path

from support.stages import REPOSITORY

TOPS = {
    "data": {"data"},
    "models": {"models"},
    "options": {"data", "models", "options"},
    "utils": {"data", "models", "options", "utils"},
}
ROOMS = (
    (
        "compare",
        "control",
        "demo",
        "demo_occlusion",
        "experiment",
        "show_agent",
        "visdom_display",
        "visdom_server",
    ),
    ("display",),
    ("agents",),
    ("training", "schedule"),
    ("evaluation",),
    ("run", "patch_store"),
    ("records",),
    ("system",),
)
"""Of utils/, from the top: each imports only its own floor and lower ones."""
FLOORS = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
LIGHT = ("utils", "agents")
"""Its `__init__` alone is a table that the command line reads flags from."""
FILES = [path for top in TOPS for path in sorted((REPOSITORY / top).rglob("*.py"))]


def imports(path: Path) -> set[tuple[str, ...]]:
    """What a file imports anywhere in it, also for type checkers alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {(*node.module.split("."), alias.name) for alias in node.names}
    return found


def test_imports_lead_down():
    wrong = set()
    for path in FILES:
        top, room = (Path(part).stem for part in path.relative_to(REPOSITORY).parts[:2])
        for name in imports(path):
            up = name[0] in TOPS and name[0] not in TOPS[top]
            if top == "options" and name[:2] == LIGHT and len(name) == 3:
                continue
            if top == "utils" and name[0] == "options":
                up = FLOORS.get(room) != 0
            if top == name[0] == "utils" and room in FLOORS:
                up = FLOORS[room] > FLOORS[name[1]]
            if up:
                wrong.add(f"{path.relative_to(REPOSITORY).as_posix()} imports {'.'.join(name)}")
    assert not wrong


def test_every_room_has_its_floor():
    assert {path.stem for path in (REPOSITORY / "utils").iterdir()} - {"__init__", "__pycache__"} == set(
        FLOORS
    )


def test_no_two_files_have_one_name():
    names = Counter(path.name for path in (*FILES, *REPOSITORY.glob("*.py")))
    assert {name for name, count in names.items() if count > 1} == {"__init__.py"}
