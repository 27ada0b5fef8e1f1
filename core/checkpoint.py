"""Trained networks on disk: float16 weights with a JSON card beside them, hash checked; and training to be resumed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as parse
from safetensors.torch import save_file
from torch import Tensor, nn

from core.data.grid import LOGLAM0, N_PIXELS, STEP

FOLDER = Path(__file__).resolve().parents[1] / "checkpoints"
LIMIT = 16_000_000  #: bytes of a weights file: what a repository bears
GRID = [N_PIXELS, LOGLAM0, STEP]  #: a network is of use on the pixels it was trained on and no others
#: What a card must say, each to be found out by nobody later: what the network is, the hash of what it learned from,
#: how many spectra it saw, on what, for how many seconds, with which losses at the end, and under which licence.
CARD = ("what", "data_sha256", "spectra_seen", "hardware", "seconds", "losses", "licence")
_OURS = ("config", "sha256", "grid")  # of a card; `save` writes these itself

Module = TypeVar("Module", bound=nn.Module)


def path_of(name: str) -> Path:
    """Where the weights of the committed network `name` are."""
    return FOLDER / f"{name}.safetensors"


def sha256(*paths: Path) -> str:
    """Hash of the contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def hardware(device: torch.device | str = "cpu") -> str:
    """What a card says of the machine: its GPU, or its processors."""
    if torch.device(device).type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{torch.get_num_threads()} of {os.cpu_count()} cores, {platform.machine()}"


def save(module_state: Mapping[str, Tensor], config: Mapping[str, Any], card: Mapping[str, Any], path: Path
         ) -> dict[str, Any]:
    """Write weights as float16 and their card; a file is whole or not there.

    Args:
        module_state: of a module, `Module.state_dict()`; integer and boolean buffers keep their type.
        config: what builds that module again, of JSON's types.
        card: the keys of CARD and any others, of JSON's types.
        path: of the weights, .safetensors; the card goes to the same name with .json.

    Returns:
        the card as written.

    Raises:
        ValueError: a card that lacks a key of CARD, brings one of `save`'s own or is not JSON; weights that float16
            does not hold; a file above LIMIT.
    """
    lacking, taken = [key for key in CARD if key not in card], [key for key in _OURS if key in card]
    if lacking or taken:
        raise ValueError(f"the card of {path.stem} " + (f"lacks {', '.join(lacking)}; name them." if lacking else
                         f"brings {', '.join(taken)}, which save writes itself; leave them out."))
    weights = {name: _half(name, value) for name, value in module_state.items()}
    size = sum(value.numel() * value.element_size() for value in weights.values())
    if size > LIMIT:
        raise ValueError(f"the weights of {path.stem} take {size / 1e6:.1f} MB as float16 and a checkpoint at most "
                         f"{LIMIT / 1e6:.0f}; make the network narrower.")
    whole = {**card, "config": dict(config), "grid": GRID}
    try:
        json.dumps(whole, allow_nan=False)  # before anything is written
    except (TypeError, ValueError) as error:
        raise ValueError(f"config or card of {path.stem} is not JSON ({error}); give finite numbers, strings, lists "
                         "and dicts of them.") from error
    _whole(path, lambda part: save_file(weights, part))
    whole["sha256"] = sha256(path)
    # killed between the two, the old card's hash disowns the new weights: never a wrong pair taken for a right one
    _whole(path.with_suffix(".json"), lambda part: part.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n"))
    return dict(json.loads(json.dumps(whole)))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """What `save` wrote: weights (floats as float32), the config that builds their module, and the card.

    Raises:
        ValueError: weights or card missing or broken, weights that are not the card's, another grid.
    """
    remedy = f"run `python -m scripts.train {path.stem}`, or fetch both files anew (git checkout {path.parent.name})."
    try:
        card = json.loads(path.with_suffix(".json").read_text())
        config, promised, grid = (card[key] for key in ("config", "sha256", "grid"))
        blob = path.read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} with its card {path.stem}.json cannot be read ({error!r}); {remedy}") from error
    if grid != GRID:
        raise ValueError(f"{path} was trained on the grid [pixels, log10 of the first, step] = {grid} and this is "
                         f"{GRID}; {remedy}")
    found = hashlib.sha256(blob).hexdigest()
    if found != promised:
        raise ValueError(f"{path} has the hash {found[:12]}... and its card promises {str(promised)[:12]}...: they "
                         f"are not of one training, or the file is damaged; {remedy}")
    try:
        weights = parse(blob)  # of the very bytes that were hashed
    except SafetensorError as error:
        raise ValueError(f"{path} holds no weights ({error}); {remedy}") from error
    return {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}, config, card


def fill(module: Module, state: Mapping[str, Tensor], name: str = "NAME") -> Module:
    """The module with these weights, every one of them used and none left out.

    Args:
        name: of the checkpoint, for the remedy.

    Raises:
        ValueError: weights of another architecture; the module is then as it was.
    """
    own = module.state_dict()
    differ = [f"{k} is {tuple(state[k].shape)} and not {tuple(own[k].shape)}" for k in own
              if k in state and own[k].shape != state[k].shape]
    kinds = {"missing": [k for k in own if k not in state], "unknown": [k for k in state if k not in own],
             "of another shape": differ}
    wrong = [f"{len(names)} {kind} ({names[0]}{', ...' if len(names) > 1 else ''})"
             for kind, names in kinds.items() if names]
    if wrong:
        raise ValueError(f"the weights do not fit {type(module).__name__}: {', '.join(wrong)}. The code has changed "
                         f"since they were trained: run `python -m scripts.train {name}`.")
    module.load_state_dict(dict(state))
    return module


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write all that a training needs to go on where it was, in one file that is whole or not there.

    Tensors go in as they are, bit by bit; around them dicts, lists and tuples, numbers, strings and None, as JSON in
    the file's header: `{"model": ..., "ema": ..., "optimizer": optimizer.state_dict(), "step": 7, "rng": ...}`.

    Raises:
        ValueError: something else in it.
    """
    tensors: dict[str, Tensor] = {}
    shape = json.dumps(_pack(state, tensors))
    _whole(path, lambda part: save_file(tensors, part, metadata={"state": shape}))


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, on the CPU, keys and types as they were (`Optimizer.load_state_dict` takes it).

    Raises:
        ValueError: no such file, or another kind of file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(_unpack(json.loads((file.metadata() or {})["state"]), file.get_tensor))
    except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
        raise ValueError(f"{path} holds no training to go on with ({error!r}); start it anew, without resuming."
                         ) from error


def _half(name: str, value: Tensor) -> Tensor:
    """A tensor of its own in memory, floats as float16."""
    value = value.detach().cpu()
    if not value.is_floating_point():
        return value.clone().contiguous()
    out = value.to(torch.float16, copy=True).contiguous()
    if not torch.isfinite(out).all():
        raise ValueError(f"{name} holds NaN or numbers beyond float16's 65504; the training diverged, or the network "
                         "wants another scale.")
    return out


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the place and move there in one step, so that nobody ever sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON, its tensors taken out and numbered. Dicts become pairs: JSON would make strings of keys."""
    if isinstance(value, Tensor):
        # save_file refuses two names for one memory, as weights and their average may be
        tensors[str(len(tensors))] = value.detach().cpu().clone().contiguous()
        return {"tensor": str(len(tensors) - 1)}
    if isinstance(value, Mapping):
        return {"dict": [[_plain(k), _pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_pack(v, tensors) for v in value]}
    return _plain(value)


def _plain(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ValueError(f"a training's state holds a {type(value).__name__}; give tensors, numbers, strings and None in "
                     "dicts, lists and tuples.")


def _unpack(value: Any, tensor: Callable[[str], Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, inside),) = value.items()
    if kind == "tensor":
        return tensor(inside)
    if kind == "dict":
        return {k: _unpack(v, tensor) for k, v in inside}
    parts: Iterable[Any] = (_unpack(v, tensor) for v in inside)
    return list(parts) if kind == "list" else tuple(parts)
