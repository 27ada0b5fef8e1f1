"""Kept draws come back as they were; nothing half, nothing unpickled, and without a disk everything else goes on."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import diskcache
import numpy as np
import pytest

from core import cache, pipeline, question
from core.cache import Cache, packed, rounded, unpacked
from core.data import library
from core.question import Question
from core.spectrum import Kernel, Samples

ROOT = Path(__file__).resolve().parent.parent
WAVE = np.linspace(4000.0, 5000.0, 40)


def samples(draws: int = 3, seed: int = 0, pixels: int = 40) -> Samples:
    numbers = 1 + np.random.default_rng(seed).standard_normal((draws, 1, pixels)) / 10
    return Samples(np.linspace(4000.0, 5000.0, pixels), numbers, "exact", {"seed": seed})


@pytest.fixture
def kept(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 10**7)


# ------------------------------------------------------------------------------------------------------ what comes back


def test_a_kept_answer_is_a_fresh_one_number_for_number(kept: Cache) -> None:
    fresh = rounded(samples())
    kept.put("a", fresh)
    again = Cache(kept.folder).get("a")  # as after a restart
    assert again is not None
    assert np.array_equal(again.draws, fresh.draws)
    assert np.array_equal(again.wave, fresh.wave)
    assert (again.method, again.origin) == ("exact", {"seed": 0})
    assert not np.array_equal(fresh.draws, samples().draws), "it is rounded, and the fresh one is rounded alike"
    assert np.abs(fresh.draws - samples().draws).max() < 1e-6
    assert kept.get("b") is None


def test_a_filters_equal_draws_are_kept_once() -> None:
    one = np.ones((1, 1, 40))
    assert len(rounded(Samples(WAVE, np.repeat(one, 5, 0), "savgol")).draws) == 1
    assert len(rounded(samples(5)).draws) == 5


def test_the_folder_stays_below_its_limit_and_the_oldest_go_first(tmp_path: Path) -> None:
    small = Cache(tmp_path, 1_500_000)
    for seed in range(40):
        small.put(str(seed), samples(8, seed, 4000))  # 160 kB each
        small.get("3")  # used all the time
    taken, limit, folder, entries = small.state()
    assert (limit, folder) == (1_500_000, tmp_path)
    on_disk = sum(file.stat().st_size for file in tmp_path.rglob("*.val"))
    assert on_disk <= taken < limit + 300_000
    assert 3 <= entries < 12
    assert small.get("39") is not None
    assert small.get("3") is not None
    assert small.get("4") is None
    small.clear()
    assert small.state()[3] == 0
    assert small.get("39") is None
    assert not list(tmp_path.rglob("*.val"))


def test_the_limit_and_the_folder_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRUELINE_CACHE", str(tmp_path / "mine"))
    monkeypatch.setenv("TRUELINE_CACHE_MB", "7")
    assert (Cache().folder, Cache().limit) == (tmp_path / "mine", 7_000_000)
    for nonsense in ("", "nan", "-1", "much", "1e400"):
        monkeypatch.setenv("TRUELINE_CACHE_MB", nonsense)
        assert cache.default_limit() == cache.LIMIT_MB * 10**6
    monkeypatch.delenv("TRUELINE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert cache.default_folder() == tmp_path / "trueline"


# ------------------------------------------------------------------------------------------------------- never a pickle


class Planted:
    """What a stranger leaves in the folder: reading it writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.mark),))


@pytest.mark.parametrize("size", [0, 2**20], ids=["in a file", "in the database"])
def test_a_pickled_value_in_the_folder_is_never_unpickled(tmp_path: Path, size: int) -> None:
    folder, mark = tmp_path / "cache", tmp_path / "mark"
    with diskcache.Cache(str(folder), disk_min_file_size=size) as theirs:
        theirs["a"] = Planted(mark)
    ours = Cache(folder)
    assert ours.get("a") is None
    assert not mark.exists()
    ours.put("a", samples())
    assert ours.get("a") is not None, "and it does not stand in the way"
    with diskcache.Cache(str(folder)) as theirs:
        theirs["b"] = Planted(mark)
        assert theirs["b"] is None
    assert mark.exists(), "the control: it was a live one"


def test_a_pickled_key_in_the_folder_is_never_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with diskcache.Cache(str(tmp_path / "cache")) as theirs:
        theirs[Planted(mark)] = "x"
    ours = Cache(tmp_path / "cache")
    ours.put("a", samples())
    assert ours.state()[3] == 2
    ours.clear()
    assert not mark.exists()


def test_a_planted_file_name_reads_and_deletes_nothing_outside(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(packed(samples()))
    ours = Cache(tmp_path / "cache")
    ours.put("a", samples(8, 0, 4000))
    for name in ("../secret", str(secret)):
        with sqlite3.connect(tmp_path / "cache" / "cache.db") as base:
            base.execute("UPDATE Cache SET filename = ?", (name,))
        assert Cache(tmp_path / "cache").get("a") is None
        assert secret.exists()
        ours.put("a", samples(8, 0, 4000))
    with sqlite3.connect(tmp_path / "cache" / "cache.db") as base:
        base.execute("UPDATE Cache SET filename = ?", (str(secret),))
    ours.clear()
    assert secret.exists()


# ------------------------------------------------------------------------------------------------ only what is whole


@pytest.mark.parametrize("harm", ["cut", "changed", "emptied", "gone"])
def test_a_damaged_answer_is_none_and_is_made_anew(kept: Cache, harm: str) -> None:
    kept.put("a", samples(8, 0, 4000))
    (file,) = kept.folder.rglob("*.val")
    blob = bytearray(file.read_bytes())
    blob[-100] ^= 1
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes({"cut": blob[:-50], "changed": blob, "emptied": b""}[harm])
    assert kept.get("a") is None
    assert not kept.problem
    kept.put("a", samples(8, 0, 4000))
    assert kept.get("a") is not None


@pytest.mark.parametrize("blob", [b"", b"no", packed(samples())[:-1], b"\xff" * 16])
def test_bytes_that_are_no_answer_are_refused(blob: bytes) -> None:
    with pytest.raises(ValueError, match="made anew"):
        unpacked(blob)


# -------------------------------------------------------------------------------------------------- without a disk


def goes_on_without(broken: Cache, *words: str) -> None:
    broken.put("a", samples())
    assert broken.get("a") is None
    assert all(word in broken.problem for word in ("Answers are not kept", "TRUELINE_CACHE", *words)), broken.problem
    assert broken.problem.count(". ") == 0, "one sentence"
    assert broken.state()[0] >= 0


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    goes_on_without(Cache(tmp_path / "file" / "cache"), "directory")


def test_a_folder_that_is_no_database_is_a_sentence_until_it_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "cache.db").write_bytes(b"this is no database at all" * 200)
    broken = Cache(tmp_path)
    goes_on_without(broken, "database")
    broken.clear()
    assert not broken.problem
    broken.put("a", samples())
    assert broken.get("a") is not None


def test_a_folder_without_rights_is_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o555)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if root:  # who may write everywhere: be somebody else for a moment
        os.seteuid(65534)
    try:
        goes_on_without(Cache(folder))
    finally:
        if root:
            os.seteuid(0)


_FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from core.cache import Cache
from core.spectrum import Samples
kept = Cache(Path(sys.argv[1]))
big = Samples(np.linspace(1, 2, 9000), np.random.default_rng(0).random((40, 1, 9000)), "exact")
kept.put("whole", big)
assert kept.get("whole") is not None and not kept.problem
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, resource.RLIM_INFINITY))
kept.put("half", big)
assert kept.get("half") is None
assert kept.get("whole") is not None
print(kept.problem)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
kept.put("half", big)
assert kept.get("half") is not None and not kept.problem
"""


def test_a_disk_that_is_full_keeps_nothing_half_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    assert hasattr(resource, "RLIMIT_FSIZE")
    done = subprocess.run([sys.executable, "-c", _FULL, str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Answers are not kept" in done.stdout
    assert len(list(tmp_path.rglob("*.val"))) == 2, "half a file is taken away again"


# ------------------------------------------------------------------------------------------------------------- the key


def test_the_key_changes_with_whatever_the_answer_hangs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    star = library.bundled()[0].select([0])
    first = Question(star, "exact", 4, 0)
    same = Question(replace(star), "exact", 4, 0, {})
    assert first.key == same.key
    flux, ivar = star.flux.copy(), star.ivar.copy()
    flux[0, 2000] += 1e-9
    ivar[0, 2000] *= 1.0001
    others = [
        Question(replace(star, flux=flux), "exact", 4, 0), Question(replace(star, ivar=ivar), "exact", 4, 0),
        Question(star.with_noise(Kernel((1.0, 0.9))), "exact", 4, 0),
        Question(replace(star, patterns=np.ones((1, star.wave.size))), "exact", 4, 0),
        Question(replace(star, meta=star.meta.assign(star="another")), "exact", 4, 0),
        Question(star, "mixture", 4, 0), Question(star, "exact", 5, 0), Question(star, "exact", 4, 1),
        Question(star, "exact", 4, 0, {"calls": 12}),
    ]
    keys = {first.key, *(other.key for other in others)}
    assert len(keys) == len(others) + 1
    monkeypatch.setattr(question, "code", lambda: "other code")
    assert Question(star, "exact", 4, 0).key not in keys


def test_the_key_changes_with_a_checkpoint_that_the_method_hangs_on_and_with_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    star = library.bundled()[0].select([0])
    for name in ("denoiser", "mixture", "ddpm", "gaussian"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
        (tmp_path / f"{name}.json").write_text("{}")
    monkeypatch.setattr(question.hashes, "FOLDER", tmp_path)

    def keys() -> dict[str, str]:
        return {method: Question(star, method).key for method in [*question.methods(), "brand_new"]}

    before = keys()
    (tmp_path / "denoiser.safetensors").write_bytes(b"trained for longer")
    changed = {method for method, key in keys().items() if key != before[method]}
    assert changed == {"exact", "pigdm", "mmps", "brand_new"}
    (tmp_path / "ddpm.json").unlink()
    assert question.weights("dps")["ddpm.json"] == "missing"
    assert Question(star, "dps").key != before["dps"]


_OPENED = """
import json, sys
from pathlib import Path
from core import pipeline
opened = set()
def hear(event, args):
    if event == "open" and isinstance(args[0], (str, Path)) and Path(args[0]).parent.name == "checkpoints":
        opened.add(Path(args[0]).stem)
sys.addaudithook(hear)
found = {}
for method in ("noisy", "pca", "mixture", "exact", "dps"):
    opened.clear()
    pipeline.build(method)
    found[method] = sorted(opened - {"SHA256SUMS"})
print(json.dumps(found))
"""


def test_a_method_opens_no_checkpoint_that_its_key_does_not_know() -> None:
    done = subprocess.run([sys.executable, "-c", _OPENED], cwd=ROOT, capture_output=True, text=True, timeout=120,
                          check=False)
    assert done.returncode == 0, done.stderr
    for method, opened in json.loads(done.stdout).items():
        assert set(opened) == set(question.WEIGHTS[method]), method
        assert opened or method == "noisy", "the control: what is opened is seen"


def test_every_method_is_known_here_in_the_order_of_the_pipeline() -> None:
    assert list(question.methods()) == list(pipeline.METHODS)
