"""Networks as denoisers: the U-Net on top of the mixture for any noise map, and the plain DDPM for flat ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.data.grid import N_PIXELS
from core.models.denoiser import Denoiser, check_noise
from core.models.mixture import Mixture
from core.models.observation import Observation
from core.models.precondition import Precondition
from core.models.schedule import linear_beta
from core.models.settled import Settled
from core.models.unet import UNet, UNetConfig, brain_floats

_ROWS = 64  # spectra a forward pass at most, outside training: memory stays bounded whatever is asked for


def run(net: UNet, inputs: Tensor, scalars: Tensor, jacobian: bool = False) -> Tensor:
    """(N, inputs, L) through the network, float32 out; in bfloat16 where the machine is good at it.

    Args:
        jacobian: the caller may use derivatives as a covariance, as MMPS does, where small differences would drown in
            rounding: float32 then, outside training.
    """
    kind = inputs.device.type
    precise = jacobian and torch.is_grad_enabled() and not net.training
    with torch.autocast(kind, torch.bfloat16, enabled=brain_floats() and not precise):
        if torch.is_grad_enabled():
            return net(inputs, scalars).float()
        parts = [net(i, s) for i, s in zip(torch.split(inputs, _ROWS), torch.split(scalars, _ROWS), strict=True)]
    return torch.cat(parts).float()


class Preconditioned(Denoiser):
    """D(x, sigma) = m + s F + G (x - m): the mixture's posterior mean m and deviation s, and a U-Net's F and G.

    EDM's preconditioning (Karras et al. 2022, arXiv:2206.00364, eq. 7) with the prior's covariance in place of one
    number: c_skip x became m, c_out became s. F is what the mixture got wrong in units of its own error; G lets the
    data back in where the mixture cannot follow (a line no star has). Both are 0 in an untrained network: it is the
    mixture.

    The network is fed (x - m) / sqrt(sigma^2 + s^2), m - 1, log s, log sigma, and 1 where something was measured;
    beside them the median log sigma and the correlation of either arm.

    Args:
        config: of the network; None for the default.
        precondition: another mixture's; the committed one by default.

    Raises:
        ValueError: spectra on another grid.
    """

    CONFIG = UNetConfig(inputs=5, outputs=2, scalars=3)

    def __init__(self, config: UNetConfig | None = None, precondition: Precondition | None = None) -> None:
        super().__init__()
        self.net = UNet(config or self.CONFIG)
        self.precondition = Precondition(Mixture.load()) if precondition is None else precondition

    def forward(self, x: Tensor, sigma: Tensor, rho: Tensor | None = None) -> Tensor:
        check_noise(x, sigma)
        if x.shape[-1] != N_PIXELS:
            raise ValueError(f"spectra of {x.shape[-1]} pixels; the network knows {N_PIXELS}: see core.data.grid.")
        rows = x.reshape(-1, N_PIXELS).float()
        noise = sigma.expand(x.shape).reshape(-1, N_PIXELS).float()
        correlation = None if rho is None else rho.expand(*x.shape[:-1], 2).reshape(-1, 2)
        with torch.no_grad():
            place = self.precondition.locate(rows, noise)
            settled = self.precondition.settle(rows, noise, place)
        m, s = settled.moments(rows[None], settled.at(noise, correlation))
        return self.correct(rows[None], noise, m, s, correlation)[0].reshape(x.shape).to(x.dtype)

    def parts(self, x: Tensor, sigma: Tensor, m: Tensor, s: Tensor, rho: Tensor | None) -> tuple[Tensor, Tensor]:
        """F and G of x (n, B, L) under sigma (B, L), each (n, B, L)."""
        live = torch.isfinite(sigma).expand(x.shape)
        noise = torch.where(torch.isfinite(sigma), sigma, 1.0).expand(x.shape)
        gap = torch.where(live, (x - m) / (noise**2 + s**2).sqrt(), 0.0).clamp(-30, 30)
        inputs = torch.stack([gap, m - 1.0, (s.log() + 5) / 2, torch.where(live, (noise.log() + 3) / 2, 0.0),
                              live.float()], 2).flatten(0, 1)
        middle = torch.where(torch.isfinite(sigma), sigma.log(), torch.nan).nanmedian(-1).values.nan_to_num(0.0)
        correlation = torch.zeros(len(sigma), 2, device=x.device) if rho is None else rho.to(x.device).expand(
            len(sigma), 2)
        scalars = torch.cat([(middle[:, None] + 3) / 2, 3 * correlation.float()], 1)
        out = run(self.net, inputs, scalars.expand(len(x), -1, -1).flatten(0, 1), True).view(*x.shape[:2], 2, N_PIXELS)
        return out[:, :, 0], out[:, :, 1]

    def correct(self, x: Tensor, sigma: Tensor, m: Tensor, s: Tensor, rho: Tensor | None) -> Tensor:
        """D from m and s; x (n, B, L), sigma (B, L)."""
        f, g = self.parts(x, sigma, m, s, rho)
        return m + s * f + g * torch.where(torch.isfinite(sigma), x - m, 0.0)

    def told(self, observation: Observation) -> Denoiser:
        return Told(self, observation)


class Told(Denoiser):
    """A preconditioned denoiser that knows which stars its draws are of: their place in the mixture is found once.

    It answers for x (n, B, L) of the observation's B stars under a map (B, L), whose algebra is done anew at each call.
    """

    def __init__(self, owner: Preconditioned, observation: Observation) -> None:
        super().__init__()
        self.owner = owner
        y, sigma = true_noise(observation)
        precondition = owner.precondition
        rho = torch.tensor(observation.noise.rho, dtype=torch.float32, device=y.device)
        with torch.no_grad():
            place = precondition.search(y, sigma, rho)
        self.settled: Settled = precondition.settle(y, sigma, place)

    def moments(self, x: Tensor, sigma: Tensor, rho: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The mixture's m and s, each (n, B, L)."""
        return self.settled.moments(x, self.settled.at(sigma, rho))

    def forward(self, x: Tensor, sigma: Tensor, rho: Tensor | None = None) -> Tensor:
        check_noise(x, sigma)
        shared = sigma.expand(x.shape)[0]
        m, s = self.moments(x, shared, rho)
        return self.owner.correct(x, shared, m, s, rho)


def true_noise(observation: Observation) -> tuple[Tensor, Tensor]:
    """y and the true deviation of its noise, both (B, L) float32; infinite where nothing was measured."""
    scale = torch.as_tensor(observation.noise.scales(observation.wave.cpu().numpy()), dtype=torch.float32)
    live = observation.live
    sigma = torch.where(live, observation.ivar.clamp_min(1e-30).rsqrt().float() * scale.to(live.device), torch.inf)
    return torch.where(live, observation.y.float(), 1.0), sigma


class PlainDDPM(Denoiser):
    """The DDPM of the literature as a denoiser: eps(x_t, t), T = 1000, linear beta (Ho et al. 2020, arXiv:2006.11239).

    x_t = sqrt(abar) u + sqrt(1 - abar) eps with u = (x0 - centre) / scale; E[x0 | x] = x - sigma eps(x_t, t), the level
    t whose noise over signal is sigma / scale, between two steps by interpolation.

    Args:
        centre: (L,) mean clean spectrum, and scale: the rms about it, of the training spectra.

    Raises:
        ValueError: a noise map that is not flat, or correlated noise: it was never trained on either.
    """

    CONFIG = UNetConfig(inputs=1, outputs=1, scalars=1)
    centre: Tensor
    scale: Tensor
    alpha_bar: Tensor
    log_sigma: Tensor

    def __init__(self, config: UNetConfig | None = None, centre: Tensor | None = None, scale: float = 0.2) -> None:
        super().__init__()
        self.net = UNet(config or self.CONFIG)
        self.register_buffer("centre", torch.ones(N_PIXELS) if centre is None else centre)
        self.register_buffer("scale", torch.tensor(scale))
        alpha_bar = torch.as_tensor(linear_beta(), dtype=torch.float64)
        self.register_buffer("alpha_bar", alpha_bar, persistent=False)
        self.register_buffer("log_sigma", (0.5 * torch.log((1 - alpha_bar) / alpha_bar)).float(), persistent=False)

    def eps(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise in x_t (N, L) at steps t (N,), counted from 0, fractions allowed."""
        return run(self.net, x_t[:, None], (t / 250.0)[:, None])[:, 0]

    def step_of(self, ratio: Tensor) -> Tensor:
        """The step at which noise over signal is `ratio`, between 0 and T - 1."""
        table, wanted = self.log_sigma, ratio.log().clamp(self.log_sigma[0], self.log_sigma[-1])
        high = torch.searchsorted(table, wanted.contiguous()).clamp(1, len(table) - 1)
        return high - 1 + (wanted - table[high - 1]) / (table[high] - table[high - 1])

    def forward(self, x: Tensor, sigma: Tensor, rho: Tensor | None = None) -> Tensor:
        check_noise(x, sigma)
        level = sigma.expand(x.shape)
        flat = level[..., :1]
        if not torch.allclose(level, flat.expand(x.shape), rtol=1e-4, atol=0) or (rho is not None and rho.any()):
            raise ValueError("the plain DDPM knows flat, white noise only; use the noise-map denoiser for other maps.")
        rows, noise = x.reshape(-1, x.shape[-1]).float(), flat.reshape(-1, 1).float()
        ratio = noise / self.scale
        x_t = (rows - self.centre) / self.scale / (1 + ratio**2).sqrt()
        return (rows - noise * self.eps(x_t, self.step_of(ratio[:, 0]))).reshape(x.shape).to(x.dtype)

    @property
    def levels(self) -> Tensor:
        """(T,) deviations of the noise in units of the continuum, rising: sigma of each step."""
        return self.log_sigma.exp() * self.scale


def modules_of(denoiser: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint holds of a denoiser: weights and persistent buffers."""
    return {name: value.detach().cpu().contiguous() for name, value in denoiser.state_dict().items()}
