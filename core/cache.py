"""Finished answers on disk, found by the question's key; in safetensors, never pickle, and bounded."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import diskcache
import numpy as np
from diskcache.core import MODE_BINARY, MODE_RAW
from safetensors import SafetensorError
from safetensors.numpy import load as parse
from safetensors.numpy import save

from core.reading import Found
from core.spectrum import Samples

LIMIT_MB = 1000  #: of the folder, unless TRUELINE_CACHE_MB says another
_INLINE = 65536  # bytes below which an answer lies in the database itself: a filter's
_DATABASE = ("cache.db", "cache.db-wal", "cache.db-shm")
#: what an unusable folder raises: full, read-only, no folder, no database, locked
_FAILURES = (OSError, sqlite3.Error, diskcache.Timeout)


class Disk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Bytes by names, and nothing else: diskcache's own unpickles whatever lies in the folder (CVE-2025-69872)."""

    def put(self, key: object) -> tuple[str, bool]:
        if not isinstance(key, str):
            raise ValueError(f"a key is a string, not {type(key).__name__}; take core.question.Question.key.")
        return key, True

    def get(self, key: object, raw: bool) -> str:
        if not raw or not isinstance(key, str):
            raise ValueError("the cache folder holds a key that Trueline did not write; clear it.")
        return key

    def store(self, value: object, read: bool, key: object = None) -> tuple[int, int, str | None, Any]:
        if not isinstance(value, bytes):
            raise ValueError(f"a value is bytes, not {type(value).__name__}; take core.cache.packed.")
        out: tuple[int, int, str | None, Any] = super().store(value, False, key)
        return out

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> bytes:
        inside = mode == MODE_RAW and isinstance(value, bytes)
        beside = mode == MODE_BINARY and filename is not None and _within(filename)
        if not (inside or beside):
            raise ValueError("the cache folder holds a value that Trueline did not write; clear it.")
        out: bytes = super().fetch(mode, filename, value, False)
        return out

    def remove(self, file_path: str) -> None:
        if _within(file_path):
            super().remove(file_path)

    def _write(self, full_path: str, iterator: Iterator[bytes], mode: str, encoding: str | None = None) -> int:
        try:
            size: int = super()._write(full_path, iterator, mode, encoding)
        except OSError:
            with suppress(OSError):  # half a file, which no row names and nobody would count
                os.remove(full_path)
            raise
        return size


def _within(filename: str) -> bool:
    """False for a name that leads out of the folder."""
    return not Path(filename).is_absolute() and ".." not in Path(filename).parts


def rounded(samples: Samples) -> Samples:
    """The samples as the cache gives them back: float32, and one row where all are the same.

    Fresh answers go through it too, so that a cached one is the same number for number.
    """
    draws = samples.draws.astype(np.float32).astype(np.float64)
    if len(draws) > 1 and (draws == draws[:1]).all():
        draws = draws[:1]
    return Samples(samples.wave, draws, samples.method, samples.origin)


def packed(answer: Samples | Found) -> bytes:
    """An answer as bytes: draws as float32, which is right to 1e-7 of the continuum, far below any noise."""
    if isinstance(answer, Found):
        numbers = {name: np.ascontiguousarray(array, dtype=np.float64) for name, array in answer.numbers.items()}
        return bytes(save(numbers, {"found": json.dumps({"method": answer.method, "sha256": _digest(numbers)})}))
    draws = np.ascontiguousarray(answer.draws, dtype=np.float32)
    head = {"method": answer.method, "origin": dict(answer.origin),
            "sha256": hashlib.sha256(draws.tobytes()).hexdigest()}
    return bytes(save({"draws": draws, "wave": answer.wave}, {"samples": json.dumps(head)}))


def _digest(numbers: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(numbers):
        digest.update(f"{name} {numbers[name].shape}".encode() + numbers[name].tobytes())
    return digest.hexdigest()


def unpacked(blob: bytes) -> Samples | Found:
    """The answer from `packed`'s bytes.

    Raises:
        ValueError: bytes that are not, or not whole.
    """
    try:
        arrays = parse(blob)  # checks the lengths that the next line trusts
        header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
        if "found" in header["__metadata__"]:
            head = json.loads(header["__metadata__"]["found"])
            if _digest(arrays) != head["sha256"]:
                raise ValueError("its numbers are not those that were stored")
            return Found(head["method"], arrays)
        head = json.loads(header["__metadata__"]["samples"])
        if hashlib.sha256(arrays["draws"].tobytes()).hexdigest() != head["sha256"]:
            raise ValueError("its draws are not those that were stored")
        return Samples(arrays["wave"], arrays["draws"], head["method"], head["origin"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"a kept answer is damaged ({error}); have it made anew.") from error


def default_folder() -> Path:
    """TRUELINE_CACHE, or where this system keeps caches."""
    if named := os.environ.get("TRUELINE_CACHE"):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "trueline"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "trueline" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trueline"


def default_limit() -> int:
    """Bytes that the folder may take: TRUELINE_CACHE_MB, or LIMIT_MB where that is no sensible number."""
    try:
        megabytes = float(os.environ.get("TRUELINE_CACHE_MB", LIMIT_MB))
    except ValueError:
        megabytes = LIMIT_MB
    return int(1e6 * (megabytes if 0 < megabytes < 1e9 else LIMIT_MB))


class Cache:
    """Answers by key on disk; where the disk fails it goes on without, and says why. For any number of threads.

    Args:
        folder: made where missing; `default_folder()` by default.
        limit: bytes it may take, the least recently used go first; `default_limit()` by default.

    Attributes:
        problem: a sentence while the folder cannot be used, else empty.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        self.folder = default_folder() if folder is None else Path(folder)
        self.limit = default_limit() if limit is None else limit
        self.problem = ""
        self._disk: diskcache.Cache | None = None
        self._open()

    def _open(self) -> None:
        with self._trying(writes=True):
            self._disk = diskcache.Cache(str(self.folder), timeout=2, disk=Disk, size_limit=self.limit,
                                         disk_min_file_size=_INLINE, cull_limit=2,
                                         eviction_policy="least-recently-used")

    @contextmanager
    def _trying(self, writes: bool = False) -> Iterator[None]:
        try:
            yield
            if writes:
                self.problem = ""
        except _FAILURES as error:
            said = (isinstance(error, OSError) and error.strerror) or str(error).partition("\n")[0]
            self.problem = (f"Answers are not kept: the cache folder {self.folder} cannot be used "
                            f"({said or type(error).__name__}); free or mend it, or name another in TRUELINE_CACHE.")

    def get(self, key: str) -> Samples | Found | None:
        """What was kept under the key; None where nothing whole is."""
        if self._disk is None:
            return None
        try:
            blob = self._disk.get(key)
            return None if blob is None else unpacked(blob)
        except ValueError:  # damaged, or not ours: it must not stand in the way of a good one
            with self._trying():
                self._disk.delete(key)
        except _FAILURES as error:
            with self._trying():
                raise error
        return None

    def has(self, key: str) -> bool:
        """Is something kept under the key, whole or not? It is not read for that."""
        found = False
        if self._disk is not None:
            with self._trying():
                found = key in self._disk
        return found

    def put(self, key: str, answer: Samples | Found) -> None:
        """Keep an answer; whole, or not at all."""
        if self._disk is not None:
            with self._trying(writes=True):
                self._disk.set(key, packed(answer))

    def state(self) -> tuple[int, int, Path, int]:
        """Bytes taken, bytes allowed, the folder, and how many answers are in it."""
        taken = entries = 0
        if self._disk is not None:
            with self._trying():
                taken, entries = int(self._disk.volume()), len(self._disk)
        return taken, self.limit, self.folder, entries

    def clear(self) -> None:
        """Forget everything, and begin anew where the folder could not be used."""
        if self._disk is not None:
            with self._trying(writes=True):
                self._disk.clear()
        if self._disk is None or self.problem:
            self.close()
            with self._trying():
                for name in _DATABASE:
                    (self.folder / name).unlink(missing_ok=True)
            self._open()

    def close(self) -> None:
        """Let the folder go."""
        if self._disk is not None:
            with suppress(*_FAILURES):
                self._disk.close()
        self._disk = None
