"""Messages between the server and its worker: a head of JSON and named arrays, as bytes; never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import pandas as pd
from safetensors.numpy import load, save

from core.question import Question
from core.reading import Found, Reading
from core.spectrum import Kernel, Samples, Spectra

Asked = Question | Reading  #: what the worker can be asked

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


def of_question(question: Asked) -> tuple[Head, Arrays]:
    """A question as a message."""
    spectra = question.spectra
    noise = spectra.noise
    head = {"method": question.method, "seed": question.seed, "stars": spectra.stars,
            "noise": [list(noise.scale), list(noise.rho), noise.join]}
    arrays = {name: np.ascontiguousarray(getattr(spectra, name)) for name in ("wave", "flux", "ivar", "continuum")}
    arrays |= {"patterns": np.ascontiguousarray(spectra.patterns)} if len(spectra.patterns) else {}
    if isinstance(question, Question):
        return head | {"draws": question.draws, "settings": dict(question.settings)}, arrays
    if question.samples is None:
        return head, arrays
    return head | {"of": question.samples.method}, arrays | {"draws": np.ascontiguousarray(question.samples.draws)}


def to_question(head: Head, arrays: Arrays) -> Asked:
    """Back from `of_question`, but for what no method looks at (the rest of the table of stars)."""
    scale, rho, join = head["noise"]
    noise = Kernel(tuple(scale), tuple(rho), join)
    drawn = arrays.pop("draws", None)
    spectra = Spectra(meta=pd.DataFrame({"star": head["stars"]}), noise=noise, **arrays)
    if "draws" in head:
        return Question(spectra, head["method"], head["draws"], head["seed"], head["settings"])
    samples = None if drawn is None else Samples(spectra.wave, drawn, head["of"])
    return Reading(spectra, head["method"], head["seed"], samples)


def of_answer(answer: Samples | Found) -> tuple[Head, Arrays]:
    """An answer as a message."""
    if isinstance(answer, Found):
        return {}, {name: np.ascontiguousarray(array) for name, array in answer.numbers.items()}
    return {"origin": dict(answer.origin)}, {"draws": answer.draws.astype(np.float32), "wave": answer.wave}


def to_answer(question: Asked, head: Head, arrays: Arrays) -> Samples | Found:
    """Back from `of_answer`: what a question was answered."""
    if isinstance(question, Reading):
        return Found(question.method, arrays)
    return Samples(arrays["wave"], arrays["draws"].astype(float), question.method, head["origin"])
