"""What an export is made from, in the words of a command that makes it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.metrics.planted import ByHand

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Asked:
    """A method, the number of its draws and what else it was told."""

    method: str
    draws: int
    settings: Mapping[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """METHOD,draws=N,NAME=VALUE, as a command takes it."""
        return ",".join([self.method, f"draws={self.draws}", *(f"{k}={v:g}" for k, v in self.settings.items())])

    @classmethod
    def parse(cls, text: str) -> Asked:
        """From `text`.

        Raises:
            ValueError: no such form, or a value that is not a number.
        """
        method, *rest = text.split(",")
        try:
            pairs = {k: float(v) for k, v in (part.split("=") for part in rest)}
        except ValueError as error:
            raise ValueError(f"{text!r} is not METHOD,draws=16,NAME=VALUE; give it like that.") from error
        draws = int(pairs.pop("draws", 16))
        return cls(method, draws, {k: int(v) if v == int(v) and k in ("steps", "calls") else v
                                   for k, v in pairs.items()})


@dataclass(frozen=True)
class Request:
    """All that decides what is made.

    Args:
        file: the star's, as a command is to name it; snr: S/N_g it is degraded to, None: as observed.
        asked: of each method; seed: of the added noise and of the draws.
        line: one put in by hand; air, rest: wavelengths of the figures; journal: whose widths they have.
        threads: that PyTorch computes with, None: its own choice; the last digits of a network's answer depend on them.
        url: parameters of the page's link, '' of a command's.
    """

    file: str
    snr: float | None
    asked: tuple[Asked, ...]
    seed: int = 0
    line: ByHand | None = None
    air: bool = False
    rest: bool = False
    journal: str = "AAS"
    threads: int | None = None
    url: str = ""

    @property
    def command(self) -> str:
        """What makes it again, for a shell in the root of a checkout."""
        words = ["python", "-m", "scripts.export", self.file, *([] if self.snr is None else ["--snr", f"{self.snr:g}"]),
                 *(word for asked in self.asked for word in ("--ask", asked.text)), "--seed", str(self.seed),
                 *([] if self.line is None else ["--line", self.line.text]), *["--air"] * self.air,
                 *["--rest"] * self.rest, "--journal", self.journal,
                 *([] if self.threads is None else ["--threads", str(self.threads)])]
        return shlex.join(words)


def file_words(path: str) -> str:
    """A file as a command may name it: within the checkout by its path there, else by name alone.

    A visitor is not told where a server keeps its files.
    """
    file = Path(path)
    try:
        return file.resolve().relative_to(ROOT).as_posix()
    except ValueError:
        return file.name
