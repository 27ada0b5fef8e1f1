"""Where a piece of the judge's table comes from: commit, checkpoints, draws, seed, device; told beside each piece."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.data.hashes import digest
from core.question import WEIGHTS
from scripts.judge_stars import SEED

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS = ROOT / "checkpoints"
COMMIT = "TRUELINE_COMMIT"  #: environment variable that names the commit where the tree has no .git
UNKNOWN = "unknown"
NOT_RECORDED = "not recorded"  #: of pieces from before each told its origin
#: checkpoints behind the test stars, their measurement and their labels, whatever the method
COMMON = ("emulator", "library", "noise", "reality", "ridge", "sky")
OWN = WEIGHTS  #: what each method answers with besides; one that is not there hangs on every file


def commit(root: Path = ROOT) -> tuple[str, bool | str]:
    """The commit of a tree, and whether its code or checkpoints differ from it ("unknown" where nobody can say).

    Without a .git the environment variable TRUELINE_COMMIT says it, as `git describe --always --abbrev=40 --dirty`
    writes it.
    """

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")  # a repository further up is another project's
    if top and Path(top).resolve() == root.resolve() and (head := git("rev-parse", "HEAD")):
        return head, bool(git("status", "--porcelain", "--", "core", "scripts", "checkpoints"))
    told = os.environ.get(COMMIT, "").strip()
    return (told.removesuffix("-dirty"), told.endswith("-dirty")) if told else (UNKNOWN, UNKNOWN)


def family(method: str) -> str:
    """The method without the setting named with it: dps of dps@0.01."""
    return method.partition("@")[0]


def filed(method: str) -> str:
    """The method as it stands in the name of a piece, where a point begins the suffix."""
    return method.replace(".", "_")


def hashes(method: str) -> dict[str, str]:
    """First 16 digits of the sha256 of each checkpoint that a method's rows hang on."""
    method = family(method)
    names = sorted({*COMMON, *OWN[method]}) if method in OWN else sorted(f.stem for f in CHECKPOINTS.glob("*.saf*"))
    files = [CHECKPOINTS / f"{name}.safetensors" for name in names]
    return {f.name: digest(f)[:16] if f.exists() else "missing" for f in files}


def device(cuda: bool) -> str:
    """Name of the GPU that draws, or of the processor."""
    if cuda:
        return str(torch.cuda.get_device_name())
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def record(method: str, draws: int, cuda: bool) -> dict[str, Any]:
    """Where a piece that is made now comes from."""
    head, dirty = commit()
    return {"method": method, "commit": head, "dirty": dirty, "checkpoints": hashes(method), "draws": draws,
            "seed": SEED, "device": device(cuda), "torch": torch.__version__, "numpy": np.__version__}


def write(origin: dict[str, Any], piece: Path) -> None:
    """Beside a piece (its path without suffix), whole or not at all.

    Raises:
        ValueError: checkpoints are no longer those that the record names.
    """
    if hashes(origin["method"]) != origin["checkpoints"]:
        raise ValueError(f"checkpoints behind {origin['method']} changed while it was judged; start the judge again.")
    part = piece.with_suffix(".json.part")
    part.write_text(json.dumps(origin, indent=1) + "\n")
    part.rename(piece.with_suffix(".json"))


def keep(origin: dict[str, Any], file: Path, begun: bool) -> None:
    """Tell where what a file holds comes from; of a file that is added to, the same as before or nothing at all.

    Args:
        begun: is there something already? Without a record nobody knows where that comes from, and none is written.

    Raises:
        ValueError: what is there was made with other checkpoints or another seed.
    """
    if file.exists():
        before = json.loads(file.read_text())
        other = [key for key in ("checkpoints", "seed") if before[key] != origin[key]]
        if other:
            raise ValueError(f"{file.parent} was begun with other {' and '.join(other)} than there are now; delete it, "
                             "or take back what changed.")
        return
    if begun:
        return
    part = file.with_name(f"{file.name}.{os.getpid()}.part")  # two parts of one piece may begin at once
    part.write_text(json.dumps(origin, indent=1) + "\n")
    part.rename(file)


def together(new: dict[str, dict[str, Any]], file: Path, still: Iterable[str]) -> None:
    """Add to a table's record where parts of it come from; "method/snr" -> origin, {} where it is not known.

    Args:
        still: the parts that stay as they were; "not recorded" where the record does not have them.

    Raises:
        ValueError: parts of one method made with different checkpoints or seeds, as far as that is recorded.
    """
    before = json.loads(file.read_text()) if file.exists() else {}
    whole: dict[str, Any] = {name: before.get(name) or NOT_RECORDED for name in still if name not in new}
    whole |= {name: origin or NOT_RECORDED for name, origin in new.items()}
    known = {name: told for name, told in whole.items() if isinstance(told, dict)}
    for name, told in known.items():
        for other, also in known.items():
            if name.split("/")[0] == other.split("/")[0] and any(told[k] != also[k] for k in ("checkpoints", "seed")):
                raise ValueError(f"{name} and {other} were made with different checkpoints or seeds and do not belong "
                                 "into one table; ask both again.")
    file.write_text(json.dumps(dict(sorted(whole.items())), indent=1) + "\n")


def agreed(tables: Iterable[Path], method: str) -> dict[str, Any]:
    """What the pieces of one method say of themselves, together.

    Args:
        tables: their files (.table); a .json beside one tells its origin, and one without is counted as not recorded.

    Returns:
        pieces, not_recorded: how many; checkpoints and seed, one for all; commits, dirty, draws and devices: all that
        occur. "not recorded" where no piece says.

    Raises:
        ValueError: pieces made with different checkpoints or seeds.
    """
    found = {f.stem: f.with_suffix(".json") for f in tables}
    told = {name: json.loads(f.read_text()) for name, f in found.items() if f.exists()}
    out: dict[str, Any] = {"pieces": len(found), "not_recorded": len(found) - len(told)}
    first = next(iter(told.values()), None)
    if first is None:
        return out | dict.fromkeys(("checkpoints", "seed", "commits", "dirty", "draws", "devices"), NOT_RECORDED)
    for name, origin in told.items():
        files = {*first["checkpoints"], *origin["checkpoints"]}
        other = sorted(f for f in files if origin["checkpoints"].get(f) != first["checkpoints"].get(f))
        if other or origin["seed"] != first["seed"]:
            raise ValueError(f"pieces of {method} do not belong together: {name} and {next(iter(told))} differ in "
                             f"{', '.join(other) or 'seed'}; delete the older ones, or give --pieces a folder of its "
                             "own to each set, and judge again what is then missing.")

    def every(key: str) -> list[Any]:
        return sorted({origin[key] for origin in told.values()}, key=str)

    return out | {"checkpoints": first["checkpoints"], "seed": first["seed"], "commits": every("commit"),
                  "dirty": every("dirty"), "draws": every("draws"), "devices": every("device")}
