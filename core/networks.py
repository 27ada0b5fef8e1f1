"""The committed networks, loaded once, and the methods that stand on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import torch
from torch import nn

from core import checkpoint
from core.models.conditional import Conditional, Regression
from core.models.conditioning import MMPS, PiGDM
from core.models.network import PlainDDPM, Preconditioned
from core.models.noise_map import NoiseMap
from core.models.noise_seen import Seen
from core.models.observation import Reconstructor
from core.models.posterior import DPS, Diffusion
from core.models.schedule import karras
from core.models.supervised import AroundMixture, ConditionalDDPM, DnCNN
from core.models.unet import UNetConfig

Network = TypeVar("Network", bound=nn.Module)


def _placed(net: Network, device: str | None) -> Network:
    """On the device asked for, or a GPU where there is one; its weights are not to be trained."""
    return net.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval().requires_grad_(False)


@lru_cache(maxsize=2)
def denoiser(device: str | None = None) -> Preconditioned:
    """The committed noise-map denoiser, on a GPU where there is one."""
    with torch.inference_mode(False):  # DPS and its relatives differentiate through it
        state, config, _ = checkpoint.load(checkpoint.path_of("denoiser"))
        net = checkpoint.fill(Preconditioned(UNetConfig.of(config["unet"])), state, "denoiser")
        return _placed(net, device)


def exact(calls: int = 9, last: float = 0.01) -> NoiseMap:
    """The exact posterior with the committed network."""
    return NoiseMap(denoiser(), calls, last)


@lru_cache(maxsize=1)
def ddpm(device: str | None = None) -> PlainDDPM:
    """The committed unconditional DDPM of the literature."""
    with torch.inference_mode(False):
        state, config, _ = checkpoint.load(checkpoint.path_of("ddpm"))
        return _placed(checkpoint.fill(PlainDDPM(UNetConfig.of(config["unet"])), state, "ddpm"), device)


def dps(strength: float = 0.03, steps: int = 100, normed: bool = True) -> DPS:
    """DPS as published on the DDPM of the literature, with its guidance strength; respaced from 1000 steps."""
    prior = ddpm()
    return DPS(prior, strength, normed, steps, centre=prior.centre, unit=float(prior.scale))


def pigdm(calls: int = 20) -> Diffusion:
    """PiGDM on the noise-map denoiser at flat maps."""
    return Diffusion(denoiser(), PiGDM, levels=karras(4.0, 1e-3, calls))


def mmps(calls: int = 20) -> Diffusion:
    """MMPS on the noise-map denoiser at flat maps."""
    return Diffusion(denoiser(), MMPS, levels=karras(4.0, 1e-3, calls))


@lru_cache(maxsize=2)
def conditional(name: str, device: str | None = None) -> tuple[ConditionalDDPM, Seen]:
    """A committed conditional DDPM of the literature, and the noise that it was trained on."""
    state, config, card = checkpoint.load(checkpoint.path_of(name))
    net = checkpoint.fill(ConditionalDDPM(name, UNetConfig.of(config["unet"])), state, name)
    return _placed(net, device), Seen.of(card)


@lru_cache(maxsize=1)
def around(device: str | None = None) -> tuple[AroundMixture, Seen]:
    """The committed conditional DDPM that is given the mixture's answer, and the noise that it was trained on."""
    state, config, card = checkpoint.load(checkpoint.path_of("supervised_mixture"))
    net = checkpoint.fill(AroundMixture(UNetConfig.of(config["unet"])), state, "supervised_mixture")
    return _placed(net, device), Seen.of(card)


@lru_cache(maxsize=2)
def regression(name: str, device: str | None = None) -> tuple[DnCNN, Seen]:
    """A committed DnCNN, and the noise that it was trained on."""
    state, _, card = checkpoint.load(checkpoint.path_of(name))
    return _placed(checkpoint.fill(DnCNN(name == "dncnn"), state, name), device), Seen.of(card)


def supervised(steps: int = 50, eta: float = 0.0) -> Conditional:
    """The literature's conditional DDPM (spec-DDPM), shown the spectrum alone."""
    return Conditional(*conditional("supervised"), steps, eta)


def supervised_ivar(steps: int = 50, eta: float = 0.0) -> Conditional:
    """The same, shown the noise map and the mask too."""
    return Conditional(*conditional("supervised_ivar"), steps, eta)


def supervised_mixture(steps: int = 50, eta: float = 0.0) -> Conditional:
    """The same, given the mixture's posterior mean and deviation: the fair rival."""
    return Conditional(*around(), steps, eta)


def dncnn() -> Regression:
    """DnCNN, shown the noise map."""
    return Regression(*regression("dncnn"))


def dncnn_blind() -> Regression:
    """DnCNN as published: it is shown the spectrum alone."""
    return Regression(*regression("dncnn_blind"))


#: methods whose network is trained elsewhere and may not be here: they are methods where its checkpoint is
OPTIONAL: dict[str, Callable[..., Reconstructor]] = {
    "supervised_mixture": supervised_mixture, "dncnn_blind": dncnn_blind}


def there() -> dict[str, Callable[..., Reconstructor]]:
    """Those of OPTIONAL whose checkpoint is committed."""
    return {name: make for name, make in OPTIONAL.items() if checkpoint.path_of(name).exists()}
