"""Imports run one way: core, then viz, then pages, then app.py; and inside core from the lower rooms up.

The sources are parsed, not imported, so an import inside a function or under TYPE_CHECKING counts as well.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = "lighttransfer_core"

# Lower rooms first: a room may import itself and what stands above it in this list.
ROOMS = (
    "errors",
    "version",
    "folders",
    "threads",
    "allocator",
    "machine_code",
    "steps",
    "layer_sets",
    "types",
    "token_ids",
    "keep",
    "selection",
    "agreement",
    "score_sets",
    "events",
    "tasks",
    "cost",
    "heap",
    "attention",
    "models",
    "cache",
    "recording",
    "prefill",
    "transcript",
    "maps",
    "decoding",
    "compiled",
    "branches",
    "laziness",
    "generation",
    "lanes",
    "batches",
    "speed",
    "throughput",
    "comparison",
    "session",
    "frontier",
    "service",
    "command_line",
    "__main__",
)
FLOORS = (CORE, "viz", "pages", "app")
HEAVY = {"torch", "transformers"}


def sources(floor: str) -> list[Path]:
    file = ROOT / f"{floor}.py"
    return [file] if file.is_file() else sorted((ROOT / floor).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def module_path(name: str) -> Path | None:
    base = ROOT.joinpath(*name.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def statements(body: list[ast.stmt], deep: bool) -> Iterator[ast.stmt]:
    """Every statement if `deep`, else those that run when the module is imported."""
    for node in body:
        yield node
        if not deep and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not deep and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from statements(node.orelse, deep)
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from statements(getattr(node, field, []), deep)
        for handler in getattr(node, "handlers", []) + getattr(node, "cases", []):
            yield from statements(handler.body, deep)


@cache
def imports(path: Path, deep: bool = True) -> frozenset[str]:
    """Dotted names of the modules that a file imports; `from a import b` is a.b where that is a module of ours."""
    found: set[str] = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")).body, deep):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports by a relative name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if module_path(full) else str(node.module))
    return frozenset(found)


def top(name: str) -> str:
    return name.partition(".")[0]


def room(name: str) -> str:
    return name.split(".")[1]


CORE_FILES = [path for path in sources(CORE) if module_name(path) != CORE]


@pytest.mark.parametrize("path", CORE_FILES, ids=module_name)
def test_a_room_of_core_imports_only_lower_rooms(path: Path) -> None:
    own = room(module_name(path))
    assert own in ROOMS, f"{own} is a new room: give it its place in ROOMS"
    allowed = ROOMS[: ROOMS.index(own) + 1]
    for name in imports(path):
        if top(name) == CORE:
            assert name != CORE, f"{path} imports the facade; import the room"
            assert room(name) in allowed, f"{path} imports {name}, which stands above it"


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_imports_only_lower_floors(floor: str) -> None:
    higher = set(FLOORS[FLOORS.index(floor) + 1 :]) | {"tests", "benchmarks"}
    files = sources(floor)
    assert files
    for path in files:
        assert not higher & {top(name) for name in imports(path)}, path


def test_streamlit_is_known_to_pages_and_to_the_component_wrappers_only() -> None:
    wrappers = ROOT / "viz" / "components"
    for path in sources(CORE) + sources("viz"):
        if wrappers not in path.parents:
            assert "streamlit" not in {top(name) for name in imports(path)}, path


def test_the_page_process_imports_neither_torch_nor_transformers() -> None:
    """Nothing that viz, pages or app.py reach at import time does, and they do not even inside a function."""
    waiting = [path for floor in FLOORS[1:] for path in sources(floor)]
    for path in waiting:
        assert not HEAVY & {top(name) for name in imports(path)}, path
    reached: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        names = imports(path, deep=False)
        assert not HEAVY & {top(name) for name in names}, f"the page process reaches {path}"
        parents = {".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 2)}
        waiting.extend(found for found in map(module_path, sorted(parents)) if found is not None)
    assert any(top(module_name(path)) == CORE for path in reached)


def test_what_pages_import_leaves_torch_unloaded() -> None:
    """The static test cannot see through other people's packages; this one can."""
    names = [module_name(path) for path in sources("viz") + sources("pages") if path.parent.name != "pages"]
    code = "import importlib, sys\n" + "\n".join(f"importlib.import_module({name!r})" for name in names)
    code += f"\nassert not {HEAVY!r} & set(sys.modules), 'torch or transformers was imported'"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
