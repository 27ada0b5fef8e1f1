"""Messages between the server and its worker: a head of JSON and named arrays, as bytes; never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import pandas as pd
from safetensors.numpy import load, save

from core.question import Question
from core.spectrum import Kernel, Spectra

Head = dict[str, Any]
Arrays = dict[str, np.ndarray]


def write(stream: IO[bytes], head: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> None:
    """One message, whole; the caller sees to it that nobody else writes meanwhile.

    Raises:
        OSError: nobody is at the other end.
    """
    first, second = json.dumps(head).encode(), save(dict(arrays)) if arrays else b""
    stream.write(len(first).to_bytes(8, "big") + len(second).to_bytes(8, "big") + first + second)
    stream.flush()


def read(stream: IO[bytes]) -> tuple[Head, Arrays] | None:
    """The next message; None where the other end is gone."""
    sizes = stream.read(16)
    if len(sizes) < 16:
        return None
    first, second = (int.from_bytes(part, "big") for part in (sizes[:8], sizes[8:]))
    body = stream.read(first + second)
    if len(body) < first + second:
        return None
    return json.loads(body[:first]), dict(load(body[first:])) if second else {}


def of_question(question: Question) -> tuple[Head, Arrays]:
    """A question as a message."""
    spectra = question.spectra
    noise = spectra.noise
    head = {"method": question.method, "draws": question.draws, "seed": question.seed,
            "settings": dict(question.settings), "stars": spectra.stars,
            "noise": [list(noise.scale), list(noise.rho), noise.join]}
    arrays = {name: np.ascontiguousarray(getattr(spectra, name)) for name in ("wave", "flux", "ivar", "continuum")}
    return head, arrays | ({"patterns": np.ascontiguousarray(spectra.patterns)} if len(spectra.patterns) else {})


def to_question(head: Head, arrays: Arrays) -> Question:
    """Back from `of_question`, but for what no method looks at (the rest of the table of stars)."""
    scale, rho, join = head["noise"]
    noise = Kernel(tuple(scale), tuple(rho), join)
    spectra = Spectra(meta=pd.DataFrame({"star": head["stars"]}), noise=noise, **arrays)
    return Question(spectra, head["method"], head["draws"], head["seed"], head["settings"])
