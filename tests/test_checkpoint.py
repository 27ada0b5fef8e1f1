"""A checkpoint comes back as it was or is refused with the remedy; a killed training goes on to the same weights."""

from __future__ import annotations

import json
import os

import pytest
import torch
from torch import nn

from core import checkpoint
from core.checkpoint import CARD, GRID, fill, hardware, load, load_state, save, save_state, sha256

WORDS = dict.fromkeys(CARD, "x") | {"spectra_seen": 7, "losses": [1.0, 0.9]}


class Small(nn.Module):
    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, 3))
        self.register_buffer("seen", torch.tensor(2**40))

    def forward(self, x):
        return self.net(x)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(1)
    module = Small()
    path = tmp_path / "small.safetensors"
    return module, path, save(module.state_dict(), {"width": 5}, WORDS, path)


def test_weights_config_and_card_come_back(saved):
    module, path, written = saved
    state, config, card = load(path)
    assert config == {"width": 5}
    assert card == written
    assert card["grid"] == GRID
    assert card["spectra_seen"] == 7
    assert card["sha256"] == sha256(path) == written["sha256"]
    again = fill(Small(**config), state, "small")
    assert again.seen == 2**40  # no float would hold it next to weights as float16
    for name, value in module.net.state_dict().items():
        assert state[f"net.{name}"].dtype == torch.float32
        torch.testing.assert_close(state[f"net.{name}"], value, rtol=2**-11, atol=6e-8)
    assert path.stat().st_size < 2 * 38 + 700  # two bytes a weight, and the header
    assert not list(path.parent.glob("*.part"))


def test_every_kind_of_damage_is_refused_with_the_remedy(saved):
    _, path, written = saved
    card, whole = path.with_suffix(".json"), path.read_bytes()
    remedy = "python -m scripts.train small"

    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"hash.*promises.*{remedy}"):
        load(path)
    path.write_bytes(b"no tensors")
    card.write_text(json.dumps(written | {"sha256": sha256(path)}))
    with pytest.raises(ValueError, match=f"holds no weights.*{remedy}"):
        load(path)
    path.write_bytes(whole)
    for wrong in ([GRID[0], GRID[1], 2e-4], [1920, *GRID[1:]], None):
        card.write_text(json.dumps(written | {"grid": wrong}))
        with pytest.raises(ValueError, match=f"trained on the grid.*{remedy}"):
            load(path)
    for text in ("{", "[]", json.dumps({k: v for k, v in written.items() if k != "config"})):
        card.write_text(text)
        with pytest.raises(ValueError, match=f"cannot be read.*{remedy}"):
            load(path)
    card.unlink()
    with pytest.raises(ValueError, match=f"cannot be read.*{remedy}"):
        load(path)
    card.write_text(json.dumps(written))
    assert load(path)[2] == written  # the control: put back, it is taken again
    path.unlink()
    with pytest.raises(ValueError, match=f"cannot be read.*{remedy}"):
        load(path)


def test_another_architecture_is_told_in_words_and_nothing_of_it_is_used(saved):
    _, path, _ = saved
    state, _, _ = load(path)
    other = Small(width=6)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(ValueError, match=r"do not fit Small: 3 of another shape \(net.0.weight is \(5, 3\) and not "
                                         r"\(6, 3\), ...\).*python -m scripts.train small"):
        fill(other, state, "small")
    assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())
    with pytest.raises(ValueError, match=r"1 missing \(seen\), 1 unknown \(sight\)"):
        fill(Small(), {k.replace("seen", "sight"): v for k, v in state.items()})


@pytest.mark.parametrize(
    ("state", "config", "card", "why"),
    [
        ({"w": torch.ones(2)}, {}, {"what": "x"}, "lacks data_sha256"),
        ({"w": torch.ones(2)}, {}, WORDS | {"sha256": "0"}, "brings sha256"),
        ({"w": torch.ones(2)}, {"act": nn.SiLU}, WORDS, "not JSON"),
        ({"w": torch.ones(2)}, {}, WORDS | {"losses": [float("nan")]}, "not JSON"),
        ({"w": torch.tensor([1.0, float("nan")])}, {}, WORDS, "w holds NaN"),
        ({"w": torch.tensor([1e5])}, {}, WORDS, "beyond float16"),
        ({"w": torch.zeros(8_000_001)}, {}, WORDS, "16.0 MB as float16.*narrower"),
    ],
)
def test_what_should_not_be_saved_is_refused_and_nothing_is_written(tmp_path, state, config, card, why):
    with pytest.raises(ValueError, match=why):
        save(state, config, card, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_what_was_there(saved, monkeypatch):
    module, path, written = saved

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save(module.state_dict(), {"width": 9}, WORDS, path)
    assert load(path)[2] == written
    assert sorted(f.name for f in path.parent.iterdir()) == ["small.json", "small.safetensors"]


def test_killed_between_weights_and_card_the_pair_is_refused(saved, monkeypatch):
    _, path, _ = saved
    real = checkpoint._whole
    monkeypatch.setattr(checkpoint, "_whole", lambda p, write: real(p, write) if p.suffix != ".json" else None)
    save(Small().state_dict(), {"width": 5}, WORDS, path)
    with pytest.raises(ValueError, match="not of one training"):
        load(path)


# ------------------------------------------------------------------------------------------------- training, resumed


def trained(module, optimizer, average, steps, generator):
    for _ in range(steps):
        x = torch.randn(8, 3, generator=generator)
        optimizer.zero_grad()
        ((module(x) - x.roll(1, -1)) ** 2).mean().backward()
        optimizer.step()
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 0.1)


def begun():
    torch.manual_seed(3)
    module = Small()
    optimizer = torch.optim.AdamW([{"params": module.net[0].parameters(), "lr": 1e-2, "betas": (0.8, 0.9)},
                                   {"params": module.net[2].parameters(), "lr": 3e-3}])
    return module, optimizer, {k: v.clone() for k, v in module.state_dict().items()}, torch.Generator().manual_seed(4)


def test_a_resumed_training_ends_bit_by_bit_where_the_whole_one_does(tmp_path):
    module, optimizer, average, generator = begun()
    trained(module, optimizer, average, 9, generator)

    first, its, mean, random = begun()
    trained(first, its, mean, 4, random)
    path = tmp_path / "run.safetensors"
    save_state({"model": first.state_dict(), "ema": mean, "optimizer": its.state_dict(), "step": 4,
                "rng": random.get_state()}, path)
    state = load_state(path)
    assert state["step"] == 4
    assert state["optimizer"]["param_groups"][0]["betas"] == (0.8, 0.9)
    assert set(state["optimizer"]["state"]) == {0, 1, 2, 3}  # numbers, as the optimizer wants them

    second, other, _, fresh = begun()
    second.load_state_dict(state["model"])
    other.load_state_dict(state["optimizer"])
    fresh.set_state(state["rng"])
    trained(second, other, state["ema"], 5, fresh)
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), second.state_dict().values(),
                                                 strict=True))
    assert all(torch.equal(average[k], state["ema"][k]) for k in average)


def test_a_state_keeps_types_and_shared_memory_apart(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    state = {"a": weight, "b": weight.T, "c": [1, (2.5, None, True)], 7: {"x": "y"}, "nan": float("inf"), "e": {},
             "big": 2**120, "half": weight.bfloat16()}
    save_state(state, tmp_path / "s.safetensors")
    back = load_state(tmp_path / "s.safetensors")
    assert list(back) == list(state)
    assert torch.equal(back["b"], weight.T)
    assert back["half"].dtype == torch.bfloat16
    assert {k: back[k] for k in ("c", 7, "nan", "e", "big")} == {k: state[k] for k in ("c", 7, "nan", "e", "big")}
    assert type(back["c"][1]) is tuple


def test_what_is_no_state_is_refused(tmp_path, saved):
    with pytest.raises(ValueError, match="holds a Linear; give tensors"):
        save_state({"model": nn.Linear(1, 1)}, tmp_path / "s.safetensors")
    (tmp_path / "text.safetensors").write_text("words")
    for path in (tmp_path / "none.safetensors", tmp_path / "text.safetensors", saved[1]):
        with pytest.raises(ValueError, match="no training to go on with.*start it anew"):
            load_state(path)


def test_the_machine_has_a_name():
    assert "cores" in hardware()
