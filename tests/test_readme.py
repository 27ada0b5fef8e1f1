"""The README's tree is the tree on disk, both ways, and every relative link leads somewhere."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOT_OURS = {".git", ".venv", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".import_linter_cache",
            "__pycache__", "build", "dist", "shared", ".trueline", "test-results", "node_modules"}

# ------------------------------------------------------------------------------------------------------- the two trees


def listed(readme: str) -> tuple[set[str], set[str]]:
    """Files named in the tree between the markers, and folders named there without files of their own.

    One entry a line, two spaces deeper for each folder, the entry's first word its name; a folder ends with `/`.

    Raises:
        ValueError: no tree, an entry deeper than its folder, or an entry twice.
    """
    block = re.search(r"<!-- tree -->\s*```\w*\n(.*?)```\s*<!-- /tree -->", readme, re.DOTALL)
    if not block:
        raise ValueError("README has no tree between <!-- tree --> and <!-- /tree -->; put it back.")
    files: set[str] = set()
    folders: set[str] = set()
    above: list[str] = []
    for line in filter(str.strip, block[1].splitlines()):
        depth, rest = divmod(len(line) - len(line.lstrip(" ")), 2)
        name = line.split()[0]
        if rest or depth > len(above):
            raise ValueError(f"README's tree: {name!r} is neither level with its neighbours nor one step deeper.")
        path = "".join(above[:depth]) + name
        if path in files | folders:
            raise ValueError(f"README's tree names {path} twice.")
        above[depth:] = [name] if name.endswith("/") else []
        (folders if name.endswith("/") else files).add(path)
    return files, {folder for folder in folders if not any(other.startswith(folder) for other in files)}


def on_disk(root: Path) -> set[str]:
    """Files that are tracked, or neither tracked nor ignored; without git, all but what tools leave behind."""
    git = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=root, capture_output=True, text=True)
    if git.returncode == 0 and (root / ".git").exists():
        return {path for path in git.stdout.split("\0") if path and (root / path).is_file()}
    paths = (file.relative_to(root) for file in root.rglob("*") if file.is_file())
    return {
        str(path) for path in paths
        if not any(part in NOT_OURS or part.endswith(".egg-info") for part in path.parts) and path.suffix != ".pyc"
    }


def differences(readme: str, disk: set[str], empty: set[str] = frozenset()) -> list[str]:
    """What the README and the disk do not agree on; `empty` are Python files without code, which need no line."""
    files, folders = listed(readme)
    covered = {path for path in disk if not path.endswith(".py") and path.startswith(tuple(folders))}
    barren = {folder for folder in folders if not any(path.startswith(folder) for path in disk)}
    return sorted(
        [f"listed, but not there: {path}" for path in (files - disk) | barren]
        + [f"there, but not listed: {path}" for path in disk - files - covered - empty]
    )


def without_code(path: Path) -> bool:
    """True for a Python file that holds no statement but its docstring."""
    body = ast.parse(path.read_text()).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def test_the_tree_in_the_readme_is_the_tree_on_disk() -> None:
    disk = on_disk(ROOT)
    empty = {path for path in disk if path.endswith("__init__.py") and without_code(ROOT / path)}
    assert not differences((ROOT / "README.md").read_text(), disk, empty)


def test_the_python_example_in_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    exec(example[1], names)
    np.testing.assert_array_equal(np.isfinite(names["residual"]), names["noisy"].measured)  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------ controls of the above

TREE = """
<!-- tree -->
```
README.md            what it is
core/
  spectrum.py        what travels
  data/
    grid.py          the grid
    stars/           a folder's note covers its files
docs/                all that explains
```
<!-- /tree -->
"""
DISK = {"README.md", "core/spectrum.py", "core/data/grid.py", "core/data/stars/a.fits.gz", "docs/noise.md"}


def test_the_tree_is_parsed() -> None:
    assert listed(TREE) == ({"README.md", "core/spectrum.py", "core/data/grid.py"}, {"core/data/stars/", "docs/"})
    assert not differences(TREE, DISK)


@pytest.mark.parametrize(
    ("disk", "found"),
    [
        (DISK - {"core/data/grid.py"}, ["listed, but not there: core/data/grid.py"]),
        (DISK - {"docs/noise.md"}, ["listed, but not there: docs/"]),
        (DISK | {"core/new.py"}, ["there, but not listed: core/new.py"]),
        (DISK | {"core/data/oddment.txt"}, ["there, but not listed: core/data/oddment.txt"]),
        (DISK | {"core/data/stars/make.py"}, ["there, but not listed: core/data/stars/make.py"]),
        (DISK | {"docs2/noise.md"}, ["there, but not listed: docs2/noise.md"]),
        (DISK | {".ci/run"}, ["there, but not listed: .ci/run"]),
    ],
)
def test_a_difference_is_found(disk: set[str], found: list[str]) -> None:
    assert differences(TREE, disk) == found


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (TREE.replace("<!-- tree -->", ""), "no tree"),
        (TREE.replace("    grid.py", "     grid.py"), "neither level"),
        (TREE.replace("    grid.py", "        grid.py"), "neither level"),
        (TREE.replace("docs/  ", "README.md"), "twice"),
    ],
)
def test_a_tree_that_cannot_be_read_is_refused(wrong: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        listed(wrong)


def test_an_init_with_code_must_be_listed(tmp_path: Path) -> None:
    file = tmp_path / "__init__.py"
    file.write_text('"""Words only."""\n')
    assert without_code(file)
    file.write_text('"""Words."""\nfrom os import path\n')
    assert not without_code(file)


def test_without_git_the_tree_is_walked(tmp_path: Path) -> None:
    for name in ("a.py", "core/b.py", "core/__pycache__/b.cpython-311.pyc", ".venv/c.py", "trueline.egg-info/PKG-INFO"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert on_disk(tmp_path) == {"a.py", "core/b.py"}


# ---------------------------------------------------------------------------------------------------------------- links


def links(text: str) -> Iterator[str]:
    """Relative targets of links and pictures in Markdown, code blocks apart, without their #anchor."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    for target in re.findall(r"\]\(\s*<?([^)\s>]+)", text) + re.findall(r"""(?:src|href)=["']([^"']+)""", text):
        if not re.match(r"[a-z][a-z0-9+.-]*:|//|#", target, re.IGNORECASE):
            yield target.partition("#")[0]


DOCUMENTS = ["README.md", "CHANGELOG.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_relative_link_leads_somewhere(document: str) -> None:
    file = ROOT / document
    broken = [target for target in links(file.read_text()) if not (file.parent / target).exists()]
    assert not broken, f"{document} points at {broken}, which are not there"


def test_links_are_found() -> None:
    text = (
        'a [b](docs/noise.md#table) ![c](docs/app.png "t") <img src="d.png"> '
        "[e](https://e.org) [f](#g) `[h](i)`\n```\n[j](k)\n```"
    )
    assert list(links(text)) == ["docs/noise.md", "docs/app.png", "d.png"]
