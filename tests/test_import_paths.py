"""`core` is found from wherever one starts: a script, another folder, the app as Streamlit runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def python(*arguments: str, cwd: Path) -> str:
    """What a fresh interpreter prints; no PYTHONPATH, so that only the install and `cwd` can find anything."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=240)
    remedy = "; `make env` installs the packages" if "ModuleNotFoundError" in done.stderr else ""
    assert done.returncode == 0, f"python {' '.join(arguments)}{remedy}\n{done.stdout}{done.stderr}"
    return done.stdout


#: what can be run; the other files of the folder are parts of these
SCRIPTS = sorted(f.stem for f in (ROOT / "scripts").glob("*.py") if '__name__ == "__main__"' in f.read_text())


@pytest.mark.parametrize("where", ["checkout", "elsewhere"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_explains_itself_from(where: str, script: str, tmp_path: Path) -> None:
    said = python("-m", f"scripts.{script}", "--help", cwd=ROOT if where == "checkout" else tmp_path)
    assert said.lower().startswith("usage")


def test_core_is_found_from_another_folder_and_is_this_checkout(tmp_path: Path) -> None:
    found = python("-c", "import core.data.lamost as m; print(m.__file__)", cwd=tmp_path)
    assert Path(found.strip()).resolve() == ROOT / "core/data/lamost.py"


def test_data_files_are_found_from_another_folder(tmp_path: Path) -> None:
    code = (
        "from importlib.resources import files\n"
        "print(sum(file.name.endswith('.fits.gz') for file in (files('core.data') / 'stars').iterdir()))"
    )
    assert int(python("-c", code, cwd=tmp_path)) == len(list((ROOT / "core/data/stars").glob("*.fits.gz"))) > 0


def test_the_app_runs_as_streamlit_starts_it_from_another_folder(tmp_path: Path) -> None:
    # `streamlit run app/main.py` puts app/ (not the checkout) first on sys.path: `core` must come from the install
    code = (
        "import sys\n"
        f"sys.path[0] = {str(ROOT / 'app')!r}\n"
        "from streamlit.testing.v1 import AppTest\n"
        f"app = AppTest.from_file({str(ROOT / 'app/main.py')!r}, default_timeout=180).run()\n"
        "assert not app.exception, [e.value for e in app.exception]\n"
        "import core; print(core.__file__)"
    )
    found = python("-c", code, cwd=tmp_path).splitlines()[-1]
    assert Path(found).resolve() == ROOT / "core/__init__.py"


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="make env"):
        python("-c", "import core.no_such_module", cwd=tmp_path)


#: what a first page has no use for, of what takes long to load; PyTorch belongs to the process that samples
SLOW = ("torch", "sklearn", "matplotlib", "scipy.stats", "scipy.interpolate", "scipy.optimize", "astropy.table")


def test_a_first_page_loads_nothing_that_it_can_do_without(tmp_path: Path) -> None:
    # its answers are being made elsewhere, by a maker that never makes; then a filter's is there
    code = f"""
import os, sys
os.environ |= {{"TRUELINE_CACHE": {str(tmp_path / "cache")!r}, "TRUELINE_WORKER": "1"}}
import numpy as np
from app import crew, resources
from core.spectrum import Samples
asked = []
crew.Worker.start = lambda self: None
crew.Worker.ask = lambda self, job: asked.append(job)
from streamlit.testing.v1 import AppTest
app = AppTest.from_file({str(ROOT / "app/main.py")!r}, default_timeout=180)
app.query_params["methods"] = "wavelet,exact"
app.run()
assert not app.exception and not app.error, [e.value for e in (*app.exception, *app.error)]
assert {{"wavelet", "exact"}} <= {{job.question.method for job in asked}}
print(*(name for name in {SLOW} if name in sys.modules), sep=",")
for job in [job for job in asked if job.question.method == "wavelet"]:
    job.end(Samples(job.question.spectra.wave, job.question.spectra.flux[None] * np.ones((1, 1, 1)), "wavelet"))
app.run()
assert not app.exception and not app.error, [e.value for e in (*app.exception, *app.error)]
print("torch" if "torch" in sys.modules else "")
"""
    assert python("-c", code, cwd=ROOT).splitlines()[-2:] == ["", ""]
