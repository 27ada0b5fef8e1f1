"""The one 1-D U-Net of the house: patches of four pixels in, four levels, attention at the bottom, pixels out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

PATCH = 4  #: pixels a patch: LAMOST has 2.4 a resolution element, so nothing is lost that 64 channels could not hold


@dataclass(frozen=True)
class UNetConfig:
    """What rebuilds a network.

    Args:
        inputs, outputs: channels; scalars: numbers that go in beside the spectrum (noise level, correlation).
        width: channels of each level, from fine to coarse; blocks: residual blocks a level, down and up.
        kernel: pixels of every convolution, odd; heads: of the attention at the bottom; embedding: its width.
    """

    inputs: int
    outputs: int = 1
    scalars: int = 1
    width: tuple[int, ...] = (64, 128, 192, 256)
    blocks: int = 1
    kernel: int = 5
    heads: int = 8
    embedding: int = 256

    def as_dict(self) -> dict[str, object]:
        """For a checkpoint's card."""
        return asdict(self) | {"width": list(self.width)}

    @classmethod
    def of(cls, card: dict[str, object]) -> UNetConfig:
        """Back from `as_dict`."""
        numbers = dict(card)
        return cls(**(numbers | {"width": tuple(numbers["width"])}))  # type: ignore[arg-type]


class _Norm(nn.Module):
    """Layer norm over channels, pixel by pixel, then scale and shift from the embedding (Perez et al. 2018, FiLM).

    Group norm would tie the pixels of a spectrum together and is three times slower in channels-last order on a CPU.
    """

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.channels = channels
        self.film = nn.Linear(embedding, 2 * channels)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.film(e)[:, None, None].to(x.dtype).chunk(2, -1)
        with torch.autocast(x.device.type, enabled=False):  # it would make float32 of everything elementwise
            rows = functional.layer_norm(x.permute(0, 2, 3, 1), (self.channels,))  # a view: channels already lie last
            return torch.addcmul(shift, rows, 1 + scale).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """Residual block: norm, SiLU, convolution, twice."""

    def __init__(self, inputs: int, outputs: int, config: UNetConfig) -> None:
        super().__init__()
        size, pad = (1, config.kernel), (0, config.kernel // 2)
        self.first, self.second = _Norm(inputs, config.embedding), _Norm(outputs, config.embedding)
        self.one = nn.Conv2d(inputs, outputs, size, padding=pad)
        self.two = nn.Conv2d(outputs, outputs, size, padding=pad)
        nn.init.zeros_(self.two.weight)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.one(functional.silu(self.first(x, e)))
        out: Tensor = self.skip(x) + self.two(functional.silu(self.second(h, e)))
        return out


class _Attention(nn.Module):
    """Self-attention over the coarsest pixels: every line tells about every other (Vaswani et al. 2017)."""

    def __init__(self, channels: int, config: UNetConfig) -> None:
        super().__init__()
        self.heads, self.norm = config.heads, _Norm(channels, config.embedding)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        rows = self.norm(x, e)[:, :, 0].transpose(1, 2)  # (N, pixels, channels)
        n, pixels, channels = rows.shape
        q, k, v = self.qkv(rows).view(n, pixels, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, pixels, channels)
        return x + self.out(seen).transpose(1, 2)[:, :, None]


def sinusoids(values: Tensor, size: int) -> Tensor:
    """(N, S) numbers of order one -> (N, S size): sines and cosines of rising frequency (Vaswani et al. 2017)."""
    frequency = torch.exp(torch.arange(size // 2, device=values.device) * (math.log(64.0) / (size // 2 - 1)))
    angle = values[..., None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1).flatten(1)


class UNet(nn.Module):
    """Channels of pixels to channels of pixels, with some scalars beside (Ronneberger et al. 2015; Ho et al. 2020).

    Convolutions are `Conv2d` of kernel (1, k) in channels-last order: two to four times faster on a CPU than `Conv1d`.
    The last layer starts at zero, so an untrained network answers 0.

    Raises:
        ValueError: a length that is no multiple of 4 x 2^(levels - 1).
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        w, e = config.width, config.embedding
        self.embed = nn.Sequential(nn.Linear(16 * config.scalars, e), nn.SiLU(), nn.Linear(e, e), nn.SiLU())
        self.stem = nn.Conv2d(config.inputs, w[0], (1, 3 * PATCH), stride=(1, PATCH), padding=(0, PATCH))
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, size in enumerate(w):
            self.down.append(nn.ModuleList(_Block(size, size, config) for _ in range(config.blocks)))
            if level + 1 < len(w):
                self.shrink.append(nn.Conv2d(size, w[level + 1], (1, 2), stride=(1, 2)))
                self.grow.append(nn.ConvTranspose2d(w[level + 1], size, (1, 2), stride=(1, 2)))
                self.up.append(nn.ModuleList(_Block(2 * size if i == 0 else size, size, config)
                                             for i in range(config.blocks)))
        self.middle, self.attention = _Block(w[-1], w[-1], config), _Attention(w[-1], config)
        self.last = _Norm(w[0], e)
        self.head = nn.Conv2d(w[0], PATCH * config.outputs, (1, 3), padding=(0, 1))
        for part in self.head.parameters():
            nn.init.zeros_(part)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it

    def forward(self, x: Tensor, scalars: Tensor) -> Tensor:
        """(N, inputs, L) and (N, scalars) -> (N, outputs, L)."""
        n, _, length = x.shape
        if length % (PATCH << (len(self.config.width) - 1)):
            raise ValueError(f"{length} pixels; give a multiple of {PATCH << (len(self.config.width) - 1)}.")
        e = self.embed(sinusoids(scalars, 16))
        h = self.stem(x[:, :, None].contiguous(memory_format=torch.channels_last))
        kept = []
        for level, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, e)
            if level < len(self.shrink):
                kept.append(h)
                h = self.shrink[level](h)
        h = self.attention(self.middle(h, e), e)
        for level in reversed(range(len(self.shrink))):
            h = torch.cat([self.grow[level](h), kept[level]], 1)
            for block in self.up[level]:  # type: ignore[attr-defined]
                h = block(h, e)
        pixels = self.head(functional.silu(self.last(h, e)))[:, :, 0]  # (N, patch outputs, L / patch)
        out: Tensor = pixels.view(n, self.config.outputs, PATCH, -1).transpose(2, 3).reshape(n, self.config.outputs, -1)
        return out


def brain_floats() -> bool:
    """True where bfloat16 is worth using: an NVIDIA card, or a processor with AMX or AVX-512 BF16."""
    if torch.cuda.is_available():
        return True
    flags = torch.backends.cpu.get_cpu_capability()
    return flags.startswith("AVX512") and torch.ops.mkldnn._is_mkldnn_bf16_supported()
