"""Stars for training come in order, with their own noise, and other ones each time a training begins."""

from __future__ import annotations

import json
import math
from argparse import Namespace

import numpy as np
import pytest
import torch

from core.data.dataset import Batch
from core.data.grid import N_PIXELS
from core.training import feed as feeding
from core.training.feed import OWN, Bank, Feed
from scripts.train import Recipe, build, kept_seed, seconds, seed_after, train

CPU = torch.device("cpu")


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------- the feed


@pytest.fixture(scope="module")
def chunk():
    threads = torch.get_num_threads()
    yield feeding.chunk  # in this process
    torch.set_num_threads(threads)


def test_a_chunk_is_decided_by_its_seed_and_number(chunk):
    one, again, next_, other = chunk(1, 0, 4), chunk(1, 0, 4), chunk(1, 1, 4), chunk(2, 0, 4)
    for name in ("excess", "sigma"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
        for different in (next_, other):
            assert not np.array_equal(getattr(one, name), getattr(different, name))


def test_the_feed_gives_chunks_in_order_and_a_bank_keeps_the_latest(chunk):
    with Feed(1, 4, workers=1, first=1) as feed:
        bank = Bank(feed, 6, CPU)
        bank.grow(wait=True)
        assert bank.count == 4
        np.testing.assert_array_equal(bank.excess[:4].numpy(), chunk(1, 1, 4).excess)
        bank.grow(wait=True)
        assert (bank.count, bank.seen) == (6, 8)
        np.testing.assert_array_equal(bank.excess[[4, 5, 0, 1]].numpy(), chunk(1, 2, 4).excess)
        clean, sigma = bank.sample(50, generator())
        assert clean.shape == sigma.shape == (50, N_PIXELS)
        assert clean.dtype == torch.float32
        assert float(clean.median()) == pytest.approx(1, abs=0.1)
        assert torch.equal(bank.sample(50, generator())[0], clean)


class Numbered:
    """Stands for a feed: star i has excess i and a map of i + 1 everywhere."""

    def take(self) -> Batch:
        number = np.arange(400, dtype=np.float16)[:, None].repeat(N_PIXELS, 1)
        return Batch(number, number + np.float16(1))


def test_most_stars_keep_the_noise_map_of_their_own_brightness_and_the_others_get_any():
    bank = Bank(Numbered(), 400, CPU)  # type: ignore[arg-type]
    bank.grow(wait=True)
    clean, sigma = (rows[:, 0] for rows in bank.sample(4000, generator()))
    own = clean == sigma  # flux is excess + 1
    expected = OWN + (1 - OWN) / 400
    assert float(own.float().mean()) == pytest.approx(expected, abs=4 * math.sqrt(OWN * (1 - OWN) / 4000))
    assert 0.5 < OWN < 1  # most of them, and some not
    crossed = torch.corrcoef(torch.stack([clean[~own], sigma[~own]]))[0, 1]
    assert abs(float(crossed)) < 4 / math.sqrt(int((~own).sum()))
    assert torch.corrcoef(torch.stack([clean, sigma]))[0, 1] > 0.5  # control
    for one, again in zip(bank.sample(9, generator(3)), bank.sample(9, generator(3)), strict=True):
        assert torch.equal(one, again)


# ------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize(("text", "value"), [("90m", 5400), ("240s", 240), ("1.5h", 5400), ("30", 30), ("0.5m", 30)])
def test_a_time_is_understood(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "90 minutes", "m", "-5m", "1h30m", "ninety"])
def test_no_time_is_refused(text):
    with pytest.raises(ValueError, match="is no time; write 240s, 90m or 1.5h"):
        seconds(text)


def test_a_seed_after_a_training_is_another_and_the_same_each_time(tmp_path):
    one, other = {"sha256": "ab"}, {"sha256": "cd"}
    assert seed_after(0, []) == 0
    seeds = [seed_after(0, [one]), seed_after(0, [other]), seed_after(1, [one]), seed_after(0, [one, other])]
    assert len({0, 1, *seeds}) == 6
    assert seeds[0] == seed_after(0, [dict(one)])
    assert all(torch.Generator().manual_seed(s * 1_000_003 + 10**6) for s in seeds)  # torch takes them
    assert kept_seed(tmp_path / "chunks.json", 5) == 5
    (tmp_path / "chunks.json").write_text('{"next": 8, "seed": 11}')
    assert kept_seed(tmp_path / "chunks.json", 5) == 11


def test_a_warm_training_begins_with_the_weights_and_not_with_the_noise_of_the_first(real, tmp_path):
    bank = Bank(Numbered(), 400, CPU)  # type: ignore[arg-type]
    bank.feed.seed = 1
    bank.excess += 0.05 * torch.randn(bank.excess.shape, generator=generator()).half()
    bank.sigma += 0.1
    bank.count = 400
    bank.grow = lambda wait=False: None  # type: ignore[method-assign]
    recipe = Recipe(2, 1e-3, 0.9, 1e9, 400)

    def trained(where: str, steps: int, warm: bool) -> tuple[int, dict[str, object]]:
        args = Namespace(folder=tmp_path / where, out=tmp_path / "out", seed=4, steps=steps, warm=warm, pause=None,
                         recipe="cpu", pairs=None, keep=False)
        train("dncnn_blind", recipe, args, bank, real)
        card = json.loads((tmp_path / "out" / "dncnn_blind.json").read_text())
        return json.loads((tmp_path / where / "dncnn_blind" / "config.json").read_text())["seed"], card

    seed, card = trained("first", 1, False)
    assert seed == card["recipe"]["seed"] == 4
    warm, after = trained("second", 1, True)
    assert warm == seed_after(4, [card]) != seed
    assert after["recipe"]["seed"] == warm
    assert trained("second", 2, True)[0] == warm  # resumed: its own, though the card is by now another
    assert seed_after(4, [after]) != warm  # control


def test_an_unknown_network_is_refused(real):
    with pytest.raises(ValueError, match="known: denoiser, ddpm"):
        build("denoisr", real, torch.ones(2, N_PIXELS))
