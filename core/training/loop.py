"""One plain training loop for every network: AdamW, warm-up and cosine, averaged weights, resumes after a kill."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from core.checkpoint import load_state, save_state
from core.training.tasks import Task

Source = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]  #: step -> clean, sigma, each (n, L) on the device


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast.

    Args:
        steps: planned; with `budget` they end the training when they are done, the budget when it is spent.
        budget: seconds for the whole of it, resumed pieces together; the rate then falls with the time used, so that
            the cosine ends where the time does.
        rate: highest learning rate; warm: share of the training over which it rises.
        average: of the weights, per step (Karras et al. 2024 call for long ones; it is shorter at the beginning).
        clip: largest norm of the gradient; every: seconds between saved states.
    """

    steps: int = 1_000_000
    budget: float | None = None
    rate: float = 5e-4
    warm: float = 0.03
    average: float = 0.999
    clip: float = 1.0
    decay: float = 1e-2
    seed: int = 0
    every: float = 60.0


class Run:
    """A training in progress: weights, their average, the optimiser, and where it is.

    Args:
        task: what is learned; folder: for the log and the state; resumes from a state found there.
    """

    def __init__(self, task: Task, config: TrainConfig, folder: Path, device: torch.device) -> None:
        self.task, self.config, self.folder, self.device = task, config, folder, device
        self.net: nn.Module = task.module
        self.weights = [p for p in self.net.parameters() if p.requires_grad]
        self.averaged = [p.detach().clone() for p in self.weights]
        self.optimizer = torch.optim.AdamW(self.weights, config.rate, (0.9, 0.99), weight_decay=config.decay,
                                           fused=device.type == "cuda")
        self.step, self.used, self.waited = 0, 0.0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        if self.state.exists():
            self._resume()

    @property
    def state(self) -> Path:
        return self.folder / "state.safetensors"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    def _resume(self) -> None:
        kept = load_state(self.state)
        with torch.no_grad():
            for name, own in (("weights", self.weights), ("averaged", self.averaged)):
                for p, value in zip(own, kept[name], strict=True):
                    p.copy_(value.to(self.device))
        self.optimizer.load_state_dict(kept["optimizer"])
        self.step, self.used = kept["step"], kept["used"]
        if self.log.exists():  # what was done after the state was saved is done, and written, again
            whole = [line for line in self.log.read_text().splitlines() if line.endswith("}")]
            past = [line for line in whole if json.loads(line)["step"] <= self.step]
            self.log.write_text("".join(f"{line}\n" for line in past))

    def save(self) -> None:
        """Write all that is needed to go on."""
        save_state({"weights": [p.detach() for p in self.weights], "averaged": self.averaged,
                    "optimizer": self.optimizer.state_dict(), "step": self.step, "used": self.used}, self.state)

    @property
    def progress(self) -> float:
        """Between 0 and 1."""
        spent = 0.0 if self.config.budget is None else self.used / self.config.budget
        return min(1.0, max(self.step / self.config.steps, spent))

    def rate(self) -> float:
        """Learning rate: a linear rise, then a cosine to zero (Loshchilov & Hutter 2017)."""
        p, warm = self.progress, self.config.warm
        return self.config.rate * (p / warm if p < warm else 0.5 * (1 + math.cos(math.pi * (p - warm) / (1 - warm))))

    def generator(self) -> torch.Generator:
        """Of this step's noise: its own, so that a resumed training draws what an unbroken one would have."""
        return torch.Generator(self.device).manual_seed(self.config.seed * 1_000_003 + self.step)

    def advance(self, source: Source) -> dict[str, Tensor]:
        """One step."""
        generator = self.generator()
        start = time.perf_counter()
        clean, sigma = source(self.step, generator)
        self.waited += time.perf_counter() - start
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate() + 1e-9
        loss, more = self.task.loss(clean, sigma, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.weights, self.config.clip)
        self.optimizer.step()
        self.step += 1
        keep = min(self.config.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.averaged, [p.detach() for p in self.weights], 1 - keep)
        return {"loss": loss.detach(), "norm": norm} | {k: v.detach() for k, v in more.items()}

    def swap(self) -> None:
        """Exchange the weights with their average: before the network is looked at, and after."""
        with torch.no_grad():
            for p, average in zip(self.weights, self.averaged, strict=True):
                kept = p.detach().clone()
                p.copy_(average)
                average.copy_(kept)


def settle(run: Run, source: Source, batches: int = 30) -> None:
    """Measure batch norm's running statistics anew with the weights that are in, each batch counted alike.

    Those of the training are of the raw weights of the last ten steps: with averaged weights in (`Run.swap`) they
    belong to another network. Nothing is done where there is no batch norm.
    """
    norms = [m for m in run.net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    kept = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
    with torch.no_grad():
        for i in range(batches):
            generator = torch.Generator(run.device).manual_seed(run.config.seed * 1_000_003 + run.step + i)
            run.task.loss(*source(run.step + i, generator), generator)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum


def fit(run: Run, source: Source, batch: int, each: Callable[[Run], None] | None = None,
        pause: float | None = None) -> list[dict[str, float]]:
    """Train until the plan is fulfilled, or for `pause` seconds of this sitting.

    Args:
        source: of spectra; batch: their number, for the log; each: called about fifty times, with averaged weights in.

    Returns:
        the log's lines of this sitting.

    Raises:
        ValueError: the loss is no number any more.
    """
    begin, last, saved, looks = time.perf_counter(), time.perf_counter(), time.perf_counter(), int(run.progress * 50)
    lines: list[dict[str, float]] = []
    sums: dict[str, Tensor] = {}
    count = 0
    (run.folder / "config.json").write_text(json.dumps(asdict(run.config), indent=1) + "\n")
    with run.log.open("a") as log, tqdm(total=1000, unit="‰", mininterval=5) as bar:
        bar.update(int(1000 * run.progress))
        while run.progress < 1 and (pause is None or time.perf_counter() - begin < pause):
            for name, value in run.advance(source).items():
                sums[name] = sums.get(name, torch.zeros((), device=run.device)) + value
            count += 1
            if count >= max(1, min(50, run.step // 4)) or run.progress >= 1:
                now = time.perf_counter()
                line = {name: float(value) / count for name, value in sums.items()}
                run.used, last, sums = run.used + now - last, now, {}
                line |= {"step": run.step, "seen": run.step * batch, "seconds": round(run.used, 2),
                         "rate": run.rate(), "waited": round(run.waited / max(now - begin, 1e-9), 4)}
                count = 0
                if not math.isfinite(line["loss"]):
                    raise ValueError(f"the loss is {line['loss']} at step {run.step}; lower the rate and begin anew.")
                lines.append(line)
                log.write(json.dumps(line) + "\n")
                log.flush()
                bar.update(int(1000 * run.progress) - bar.n)
                bar.set_postfix(loss=f"{line['loss']:.4g}", refresh=False)
                if now - saved > run.config.every:
                    run.save()
                    saved = now
                if each is not None and int(run.progress * 50) > looks:
                    looks = int(run.progress * 50)
                    run.swap()
                    each(run)
                    run.swap()
        run.save()
    return lines
