"""Who may import whom: the contracts of pyproject.toml hold, and each of them would notice."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("core", "app", "scripts")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Checks the contracts of the tree in `folder` (its own packages: a working directory comes before an install)."""
    code = "from importlinter.cli import lint_imports_command as run; run()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache", "--no-logo"],
        cwd=folder, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, timeout=120,
    )


def copy_of_the_tree(folder: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.gz"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_import_contracts_hold() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line", "found"),
    [
        ("core/spectrum.py", "import core.data.grid", "core.spectrum -> core.data.grid"),
        ("core/spectrum.py", "import scipy", "core.spectrum -> scipy"),
        ("core/data/grid.py", "import torch", "core.data.grid -> torch"),
        ("core/data/lamost.py", "from core.models import baselines", "core.data.lamost -> core.models.baselines"),
        ("core/models/baselines.py", "import core.pipeline", "core.models.baselines -> core.pipeline"),
        ("core/models/baselines.py", "import core.training.loop", "core.models.baselines -> core.training.loop"),
        ("core/checkpoint.py", "import core.pipeline", "core.checkpoint -> core.pipeline"),
        ("core/pipeline.py", "import app.resources", "core.pipeline -> app.resources"),
        ("core/pipeline.py", "import scripts.prepare", "core.pipeline -> scripts.prepare"),
        ("core/pipeline.py", "import streamlit", "core.pipeline -> streamlit"),
        ("app/charts.py", "import torch", "app.charts -> torch"),
        ("app/charts.py", "from core.models.observation import Reconstructor", "app.charts -> core.models.observation"),
        ("app/charts.py", "from core.pipeline import METHODS", "app.charts -> core.pipeline"),
        ("app/views/star.py", "import scripts.prepare", "app.views.star -> scripts.prepare"),
        ("core/oddments.py", "", "oddments"),
        ("core/metrics/lines.py", "import torch", "core.metrics.lines -> torch"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, file: str, line: str, found: str) -> None:
    tree = copy_of_the_tree(tmp_path)
    planted = tree / file
    planted.parent.mkdir(exist_ok=True)
    (planted.parent / "__init__.py").touch()
    planted.write_text((planted.read_text() if planted.exists() else "") + f"\n{line}\n")
    done = lint_imports(tree)
    assert done.returncode != 0, f"{line!r} in {file} went unseen:\n{done.stdout}"
    assert found in done.stdout, done.stdout + done.stderr


# ------------------------------------------------------------------------------------------ the readers know no torch


def loaded_by(*modules: str) -> set[str]:
    """Top-level names in sys.modules of a fresh interpreter after importing `modules`."""
    code = (
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_reading_lamost_loads_no_torch() -> None:
    assert "torch" not in loaded_by("core.data.lamost")


def test_nothing_in_core_data_loads_torch_or_streamlit() -> None:
    modules = [f"core.data.{file.stem}" for file in (ROOT / "core/data").glob("*.py") if file.stem != "__init__"]
    assert not loaded_by("core.spectrum", *modules) & {"torch", "streamlit"}


def test_the_page_opens_without_torch_which_is_the_workers() -> None:
    assert "torch" not in loaded_by("app.resources", "app.widgets", "app.charts", "app.state")


def test_a_loaded_torch_would_be_seen() -> None:
    assert "torch" in loaded_by("core.data.lamost", "torch")


# ------------------------------------------------------------------------------------------------------ never pickle

PICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def pickles_in(source: str) -> Iterator[str]:
    """Everything in a source file that could execute what it reads: by syntax, so that a comment may say `pickle`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"import {a.name}" for a in node.names if a.name.partition(".")[0] in PICKLERS)
        elif isinstance(node, ast.ImportFrom) and node.module:
            top = node.module.partition(".")[0]
            names = [a.name for a in node.names]
            if top in PICKLERS or (top in {"torch", "pandas"} and {"load", "read_pickle"} & set(names)):
                yield f"from {node.module} import {', '.join(names)}"
        elif isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            if call == "torch.load" or call.rsplit(".", 1)[-1] in {"read_pickle", "to_pickle"}:
                yield f"{call}(...)"
            for keyword in node.keywords:
                harmless = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg == "allow_pickle" and not harmless:
                    yield f"{call}({ast.unparse(keyword)})"


def test_nothing_is_read_with_pickle() -> None:
    files = [file for package in (*PACKAGES, "tests") for file in (ROOT / package).rglob("*.py")]
    assert len(files) > 5
    found = {str(file.relative_to(ROOT)): hits for file in files if (hits := list(pickles_in(file.read_text())))}
    assert not found, f"these could run code hidden in a file; use FITS, JSON or safetensors: {found}"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import os, cloudpickle as c",
        "from pickle import load",
        "from joblib import load",
        "def f():\n    import joblib.memory",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "torch.load(path)",
        "torch.load(path, weights_only=True)",
        "from torch import load",
        "pd.read_pickle(path)",
        "table.to_pickle(path)",
    ],
)
def test_a_pickle_is_found(line: str) -> None:
    assert list(pickles_in(line))


def test_words_about_pickle_are_no_pickle() -> None:
    source = '"""Never pickle."""\n# import pickle\nnp.load(path, allow_pickle=False)\njson.load(file)\n'
    assert not list(pickles_in(source))
