"""The U-Net: shapes, a start at zero, the same answer wherever a line lies, half precision, and its size."""

from __future__ import annotations

import pytest
import torch

from core.models.network import PlainDDPM, Preconditioned, run
from core.models.supervised import CHANNELS, AroundMixture, ConditionalDDPM
from core.models.unet import PATCH, UNet, UNetConfig, sinusoids

TINY = UNetConfig(inputs=3, outputs=2, scalars=2, width=(8, 12, 16), heads=2, embedding=16)
STRIDE = PATCH << (len(TINY.width) - 1)  # pixels a coarsest pixel stands for


def stirred(config: UNetConfig = TINY, attention: bool = True, size: float = 0.2) -> UNet:
    """A network whose layers that start at zero have weights, as after training."""
    net = UNet(config)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(size * torch.randn(p.shape, generator=g) / max(1, p[0].numel()) ** 0.5)
            if name.startswith("attention") and not attention:
                p.zero_()
    return net.eval()


def question(n: int = 2, length: int = 16 * STRIDE, config: UNetConfig = TINY) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    return (torch.randn(n, config.inputs, length, generator=g), torch.randn(n, config.scalars, generator=g))


@pytest.mark.parametrize("length", [STRIDE, 10 * STRIDE, 3840])
@torch.no_grad()
def test_the_answer_has_the_length_of_the_question_and_a_new_network_answers_zero(length):
    x, s = question(length=length)
    answer = UNet(TINY)(x, s)
    assert answer.shape == (2, 2, length)
    assert not answer.any()
    assert stirred()(x, s).abs().min() > 0  # control: zero is where it starts, not all it can say


@torch.no_grad()
def test_every_input_and_every_scalar_counts():
    net, (x, s) = stirred(), question()
    answer = net(x, s)
    for i in range(TINY.inputs):
        other = x.clone()
        other[:, i] += 1
        assert (net(other, s) - answer).abs().max() > 1e-3
    for i in range(TINY.scalars):
        other = s.clone()
        other[:, i] += 1
        assert (net(x, other) - answer).abs().max() > 1e-4


@torch.no_grad()
def test_a_line_moved_by_a_coarsest_pixel_is_answered_alike_but_for_the_attention():
    x, s = question(1, 60 * STRIDE)
    x[:, :, : 15 * STRIDE] = x[:, :, -15 * STRIDE :] = 0  # far from the ends, whose padding is no pixel
    local, whole = stirred(attention=False, size=1.0), stirred(size=1.0)
    inside = slice(14 * STRIDE, -14 * STRIDE)
    moved = torch.roll(x, STRIDE, 2)
    torch.testing.assert_close(torch.roll(local(x, s), STRIDE, 2)[..., inside], local(moved, s)[..., inside],
                               rtol=0, atol=1e-4)
    one = torch.roll(local(x, s), 1, 2)[..., inside] - local(torch.roll(x, 1, 2), s)[..., inside]
    assert one.abs().max() > 0.1  # control: by one pixel the patches are others
    far = x.clone()
    far[:, :, 20 * STRIDE] += 3  # attention carries what lies here to the other end; convolutions do not
    end = slice(-9 * STRIDE, None)
    assert (local(far, s) - local(x, s))[..., end].abs().max() == 0
    assert (whole(far, s) - whole(x, s))[..., end].abs().max() > 1e-4


@torch.no_grad()
def test_a_spectrum_does_not_know_its_neighbours_in_the_batch():
    net, (x, s) = stirred(), question(3)
    torch.testing.assert_close(net(x, s)[1:2], net(x[1:2], s[1:2]), rtol=0, atol=1e-5)
    assert (net(x, s)[1] - net(x, s)[0]).abs().max() > 1e-3


@torch.no_grad()
def test_half_precision_and_full_agree_to_two_per_cent(monkeypatch):
    net, (x, s) = stirred(size=0.8), question(4)
    full = net(x, s)
    monkeypatch.setattr("core.models.network.brain_floats", lambda: True)
    half = run(net, x, s)
    assert half.dtype == torch.float32
    off = float((half - full).pow(2).mean().sqrt() / full.pow(2).mean().sqrt())
    assert 1e-6 < off < 0.02  # another answer, so half precision it was


def test_a_jacobian_is_not_rounded_and_a_plain_gradient_may_be(monkeypatch):
    net, (x, s) = stirred(), question()
    monkeypatch.setattr("core.models.network.brain_floats", lambda: True)
    assert torch.equal(run(net, x.requires_grad_(), s, jacobian=True), net(x, s))
    assert not torch.equal(run(net, x, s), net(x, s))
    with torch.no_grad():  # nothing to differentiate: half precision is allowed
        assert not torch.equal(run(net, x, s, jacobian=True), net(x, s))


@torch.no_grad()
def test_many_spectra_go_through_in_pieces_and_come_out_alike(monkeypatch):
    net, (x, s) = stirred(), question(10)
    monkeypatch.setattr("core.models.network.brain_floats", lambda: False)
    whole = run(net, x, s)
    monkeypatch.setattr("core.models.network._ROWS", 3)
    torch.testing.assert_close(run(net, x, s), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", [Preconditioned.CONFIG, PlainDDPM.CONFIG, UNetConfig(inputs=5, outputs=1)])
def test_it_has_at_most_eight_million_weights(config):
    assert 1e6 < sum(p.numel() for p in UNet(config).parameters()) <= 8e6


@pytest.mark.parametrize("variant", CHANNELS)
def test_the_supervised_ones_are_no_larger(variant):
    assert sum(p.numel() for p in ConditionalDDPM(variant).parameters()) <= 8e6


def test_nor_is_the_one_around_the_mixture():
    assert sum(p.numel() for p in UNet(AroundMixture.CONFIG).parameters()) <= 8e6


@pytest.mark.parametrize("length", [STRIDE - 1, STRIDE + PATCH, 3841])
def test_a_length_that_does_not_divide_is_refused(length):
    x, s = question(length=length)
    with pytest.raises(ValueError, match=f"give a multiple of {STRIDE}"):
        UNet(TINY)(x, s)


def test_a_config_comes_back_from_its_card():
    assert UNetConfig.of(TINY.as_dict()) == TINY
    UNet(UNetConfig.of(TINY.as_dict())).load_state_dict(UNet(TINY).state_dict())


def test_the_embedding_tells_near_levels_apart_and_far_ones_too():
    e = sinusoids(torch.tensor([[0.0], [0.02], [1.0], [4.0]]), 16)
    assert e.shape == (4, 16)
    gap = torch.cdist(e, e) + torch.eye(4)
    assert gap.min() > 0.3
