"""The training loop's body: slabs -> network -> weighted loss -> step, with moving-average weights and a guard against not-a-number.

Everything after the first copy stays on the device; only scalars leave, and on CUDA only when they are asked for.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..contract.errors import ModelError, TrainingError
from ..contract.numbers import number, whole
from ..contract.settings import Settings
from . import augmentation
from .augmentation import Draw
from .cores import batches, cores_of
from .device import Compute, RunPlan
from .loss import soft_dice_loss, weighted_cross_entropy
from .start import Start, moments, solve_head
from .unet import UNet3d
from .weights import check_like

_WARM_UP_STEPS = 20
_CHECK_EVERY = 10  # steps between looks at the loss; on CUDA each look waits for the device
_MAX_BAD_STATES = 5
_CLIP_NORM = 5.0
_SUPERVISED_OF = 200  # slabs
_MOST_STEPS = 10**9
_SLICES_OF_HEAD = 24  # at most, that a new network's head is solved from


def load_optimizer() -> None:
    """The first optimizer loads much of torch; for a thread that nobody waits for."""
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])


class Learner:
    """Trains a network; `step` does one step. What it learns from is for those to say who are one, in the methods up to `_share`."""

    def __init__(self, compute: Compute, plan: RunPlan, settings: Settings) -> None:
        torch.manual_seed(settings.seed)
        self.compute, self.settings = compute, settings
        self.network = UNet3d(plan.network).to(compute.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=1e-4, fused=compute.device.type != "mps"
        )
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.dtype == torch.float16)
        self.rng = np.random.default_rng(settings.seed)
        self.cores = cores_of(compute.device.type)
        self.steps = 0
        self.bad_states = 0
        self.rate_factor = 1.0
        self.replan(plan)
        self._recent: list[Tensor] = []
        self._supervised: deque[Tensor] = deque(maxlen=_SUPERVISED_OF)
        self._losses: dict[str, float] = {}
        self._good = self._snapshot()

    def replan(self, plan: RunPlan) -> None:
        """Thinner slabs or fewer of them, the same network: after running out of memory."""
        self.plan = plan

    def step(self, progress: float) -> None:
        """One step. progress: how much of the run is over, 0..1; sets the learning rate. Raises TrainingError where the loss stays nan."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self.rate_factor * _schedule(self.steps, progress)
        together = batches(self._batch(), self._kind, self.cores.at_once)
        losses, gradients = zip(*self.cores.map(self._gradients, together), strict=True)
        loss = torch.cat(losses).mean(0)
        for parameter, *parts in zip(self.network.parameters(), *gradients, strict=True):
            # in the parameter's own layout: flat convolutions on a GPU answer in another one, which the fused optimizer refuses
            parameter.grad = torch.empty_like(parameter).copy_(sum(parts[1:], parts[0]) / self.plan.batch)
        self._share([*(parameter.grad for parameter in self.network.parameters() if parameter.grad is not None), loss])
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._update_average()
        self.steps += 1
        self._recent.append(loss)
        if self.steps % _CHECK_EVERY == 0:
            self._check()

    def losses(self) -> dict[str, float]:
        """The loss terms over the last steps; empty before the first look."""
        return dict(self._losses)

    @property
    def supervised(self) -> float:
        """Which share of the voxels that it computed had a label, over the last slabs; 0 before the first."""
        return float(torch.stack(list(self._supervised)).mean()) if self._supervised else 0.0

    def state(self) -> dict[str, Any]:
        """All that resuming needs, as tensors and plain values on the CPU."""
        return {
            "network": _on_cpu(self.network.state_dict()),
            "optimizer": _on_cpu(self.optimizer.state_dict()),
            "rng": _plain(self.rng.bit_generator.state),
            "steps": self.steps,
            "rate_factor": self.rate_factor,
        }

    def load_state(self, state: dict[str, Any], average: dict[str, Tensor]) -> None:
        """Go on from what `state` gave. Raises ModelError where that is not of such a network; then nothing has changed."""
        try:
            self._check_state(state, average)
            rng = _restored(state["rng"])
            steps, rate_factor = whole(state["steps"], 0, _MOST_STEPS), number(state["rate_factor"], 0, 1)
            np.random.default_rng().bit_generator.state = rng  # numpy knows best what is none
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ModelError(f"Its training state is damaged ({error!s:.200}).", "Train a new model.") from error
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(average)
        moments = self._laid_out(state["optimizer"]["state"])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})  # with the rates of this run
        self.rng.bit_generator.state = rng
        self.steps, self.rate_factor = steps, rate_factor
        self._good = self._snapshot()

    def _check_state(self, state: dict[str, Any], average: dict[str, Tensor]) -> None:
        """Raises KeyError, TypeError, ValueError."""
        own = self.network.state_dict()
        for weights in (state["network"], average):
            if weights.keys() != own.keys():
                raise ValueError("weights of another network")
            for name, weight in weights.items():
                check_like(weight, own[name])
        moments = state["optimizer"]["state"]
        parameters = dict(enumerate(self.network.parameters()))
        if moments.keys() not in (set(), parameters.keys()):
            raise ValueError("the optimizer of another network")
        for index, moment in moments.items():
            if moment.keys() != {"step", "exp_avg", "exp_avg_sq"}:
                raise ValueError("another optimizer")
            check_like(moment["step"], torch.zeros(()))
            check_like(moment["exp_avg"], parameters[index])
            check_like(moment["exp_avg_sq"], parameters[index])
            if moment["step"] < 0 or (moment["exp_avg_sq"] < 0).any():
                raise ValueError("the optimizer's means are none")

    def _laid_out(self, moments: dict[int, dict[str, Tensor]]) -> dict[int, dict[str, Tensor]]:
        """In memory as their parameters are: the fused optimizer goes through both side by side, and files have their own order."""
        parameters = dict(enumerate(self.network.parameters()))
        return {
            index: {name: torch.empty_like(parameters[index]).copy_(part) if part.dim() else part for name, part in moment.items()}
            for index, moment in moments.items()
        }

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Begin with these weights, as far as they fit (a head for other classes does not); what they lack stays as it is."""
        own = self.network.state_dict()
        fitting = {name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape}
        self.network.load_state_dict(fitting, strict=False)
        self.average.load_state_dict(self.network.state_dict())
        self._good = self._snapshot()

    @torch.no_grad()
    def begin_with(self, start: Start, tick: Callable[[], None] = lambda: None) -> None:
        """Begin with a body that knows such tasks, and the head that fits the slices at hand best; targets must be there. tick is called after every
        slice, and may raise."""
        self.start_from(start.weights)
        sums = []
        for part in self.cores.map(self._moments, self._still(_SLICES_OF_HEAD)):
            tick()
            sums.append(part)
        solved = start.sharpness * solve_head(torch.stack(sums).sum(0), start.ridge)
        self.start_from({"head.weight": solved[:, :-1].view_as(self.network.head.weight), "head.bias": solved[:, -1]})

    def _moments(self, draw: Draw) -> Tensor:
        """Of the labelled voxels of one slab, (classes, d + 1, d + 1)."""
        image, labels, weights = self._slab(draw)
        with self.compute.autocast():
            features = self.average.features(image[None].contiguous(memory_format=torch.channels_last_3d))[0]
        known = weights > 0
        return moments(features.float()[:, known].T, labels[known], weights[known], self.plan.network.classes)

    def _batch(self) -> list[Draw]:
        """What to look at in this step: slices and how they are moved, drawn in one thread, so that a seed repeats a run."""
        raise NotImplementedError

    def _still(self, most: int) -> Iterable[Draw]:
        """So many slices at most, as they are."""
        raise NotImplementedError

    def _slab(self, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """As augmentation.take_slab says. Asked by several threads."""
        raise NotImplementedError

    def _kind(self, draw: Draw) -> Hashable:
        """Slabs of a kind have one shape."""
        return draw.axis

    def _share(self, tensors: Sequence[Tensor]) -> None:
        """Make them, in place, the means over all processes that train together."""

    def _gradients(self, draws: Sequence[Draw]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Of slabs of one shape: cross-entropy and Dice loss of each, (N, 2), and the gradient of each parameter, summed over the slabs."""
        slabs = zip(*map(self._slab, draws), strict=True)
        image, labels, weights = (torch.stack(parts) for parts in slabs)
        self._supervised.extend((weights > 0).float().mean((1, 2, 3)))
        with self.compute.autocast():
            logits = self.network(image.contiguous(memory_format=torch.channels_last_3d))
        losses = torch.stack([self._losses_of(logits[n : n + 1], labels[n : n + 1], weights[n : n + 1]) for n in range(len(draws))])
        total = self.scaler.scale((losses[:, 0] + self.settings.dice_weight * losses[:, 1]).sum())
        return losses.detach(), torch.autograd.grad(total, list(self.network.parameters()))

    @staticmethod
    def _losses_of(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Cross-entropy and Dice loss of one slab, (2,): each slab counts alike, however much of it is labelled."""
        return torch.stack([weighted_cross_entropy(logits, labels, weights), soft_dice_loss(logits, labels, weights)])

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.settings.ema_decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - decay)

    def _check(self) -> None:
        """Back to the last good state where a loss is no number, with a smaller step; keep this state where it is."""
        means = torch.stack(self._recent).mean(0).tolist()
        self._recent.clear()
        if all(math.isfinite(v) for v in means):
            self._losses = {"cross_entropy": means[0], "dice": means[1]}
            if self.steps % (5 * _CHECK_EVERY) == 0:
                self._good = self._snapshot()
            return
        self.bad_states += 1
        if self.bad_states > _MAX_BAD_STATES:
            raise TrainingError(
                "Training does not converge: the loss keeps becoming not-a-number.", "Check the image for extreme values, or lower the learning rate."
            )
        self.rate_factor /= 2
        self.network.load_state_dict(self._good["network"])
        self.average.load_state_dict(self._good["average"])
        self.optimizer.load_state_dict(copy.deepcopy(self._good["optimizer"]))

    def _snapshot(self) -> dict[str, Any]:
        return copy.deepcopy({"network": self.network.state_dict(), "average": self.average.state_dict(), "optimizer": self.optimizer.state_dict()})


class Trainer(Learner):
    """Trains one network on one volume, whose targets may change between two steps."""

    def __init__(
        self, compute: Compute, plan: RunPlan, volume: augmentation.TrainingVolume, augmenter: augmentation.Augmenter, settings: Settings
    ) -> None:
        self.volume, self.augmenter = volume, augmenter
        super().__init__(compute, plan, settings)

    def _batch(self) -> list[Draw]:
        sampler = self.volume.targets.sampler
        return [self.augmenter.draw(self.rng, *sampler.draw(self.rng)) for _ in range(self.plan.batch)]

    def _still(self, most: int) -> Iterable[Draw]:
        still = augmentation.Augmenter(self.augmenter.grid, self.augmenter.spacing_kji_mm, strength=0, channels=self.augmenter.channels)
        slices = self.volume.targets.sampler.slices
        chosen = [slices[n] for n in sorted(self.rng.permutation(len(slices))[:most])]
        return (still.draw(self.rng, *s) for s in chosen)

    def _slab(self, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        return augmentation.take_slab(self.volume, draw, self.plan.slices)


def _schedule(steps: int, progress: float) -> float:
    """Linear warm-up, then half a cosine down to a fiftieth."""
    warm_up = min(1.0, (steps + 1) / _WARM_UP_STEPS)
    return warm_up * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress)))))


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(v) for key, v in value.items()}
    return [_on_cpu(v) for v in value] if isinstance(value, (list, tuple)) else value


def _plain(state: Any) -> dict[str, Any]:
    """numpy's generator state holds 128-bit integers, which files loaded with weights_only may not: as text."""
    inner = state["state"]
    return {**state, "state": {key: str(value) for key, value in inner.items()}}


def _restored(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "state": {key: int(value) for key, value in state["state"].items()}}
