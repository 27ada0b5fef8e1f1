"""Hashes of the numbers that ship, in one list beside them: a damaged or mixed-up file is refused on loading."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "checkpoints"
LIST = "SHA256SUMS.json"  #: file name -> SHA-256, hexadecimal; of files without a card that tells their own


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recorded(folder: Path = FOLDER) -> dict[str, str]:
    """The list of a folder; empty where it has none.

    Raises:
        ValueError: a list that cannot be read.
    """
    path = Path(folder) / LIST
    if not path.is_file():
        return {}
    try:
        return {str(name): str(value) for name, value in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); take it from the repository again "
                         f"(git checkout {path.parent.name}).") from error


def verified(path: Path) -> Path:
    """The path of a file whose content is what the list beside it says.

    A file that no list names is let through, and so is one that is missing (its loader says what makes it): numbers
    that somebody saved elsewhere are theirs to answer for.

    Raises:
        ValueError: a file that is not the one listed.
    """
    path = Path(path)
    promised = recorded(path.parent).get(path.name)
    if promised is None or not path.is_file():
        return path
    found = digest(path)
    if found != promised:
        raise ValueError(f"{path} has SHA-256 {found[:12]}... and {LIST} beside it says {promised[:12]}...: it is "
                         f"damaged or of another version; take both from the repository again (git checkout "
                         f"{path.parent.name}), or make it anew with `python -m scripts.prepare`.")
    return path


def record(*paths: Path) -> None:
    """Write files just made into the list beside them; where there is none (elsewhere than FOLDER) nothing is done.

    A save that is killed before this leaves a file that the list disowns, never a wrong one taken for a right one.
    """
    for path in map(Path, paths):
        listed = path.parent / LIST
        if not listed.is_file() and path.parent.resolve() != FOLDER:
            continue
        known = recorded(path.parent) | {path.name: digest(path)}
        part = listed.with_name(f"{LIST}.part")
        part.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
        os.replace(part, listed)
