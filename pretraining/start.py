"""Train what the network knows before it has seen a patient: see sparseseg/network/start.py.

usage: start.py [--seed 1] [--steps N] [--minutes M] [--patients FOLDER] [--out start.pt] [--device auto] [--tasks 16] [--makers N]

A task is a volume, synthetic or of a patient, with a few slices of up to six of its segments given and others asked. The network's body reads all of
them, a ridge regression on its features of the given ones is the head, and the loss is that of the engine on the asked ones. So the body learns
features from which a few slices tell the rest. No case of docs/accuracy.md is among the volumes. The log says the mean Dice on tasks of volumes
that are never learned from.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from copy import deepcopy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "SparseSegSlicer"), str(ROOT / "pretraining"), str(ROOT / "Testing")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from tasks import ASKED, GIVEN, MOST, Tasks, make  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from sparseseg.network.loss import soft_dice_loss, weighted_cross_entropy  # noqa: E402
from sparseseg.network.start import Start, moments, solve_head  # noqa: E402
from sparseseg.network.unet import UNet3d, plan_network  # noqa: E402

STEPS, TASKS, WIDTH, DEPTH = 2100, 16, 16, 4
SYNTHETIC, HELD_OUT = 900, 0.06  # volumes; share of all that is only asked about
_EMA = 0.998
_NEVER = -1e4  # the logit of a class that the given slices do not show


class Learner(nn.Module):
    """The body, and the two numbers that fix the head."""

    def __init__(self) -> None:
        super().__init__()
        self.network = UNet3d(plan_network(1, (192, 192), MOST + 1, WIDTH, DEPTH))
        self.log_ridge, self.log_sharpness = nn.Parameter(torch.tensor(math.log(1e-3))), nn.Parameter(torch.tensor(math.log(8.0)))

    def forward(self, x: Tensor, labels: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Logits of the asked slices, (T * ASKED, C, 1, j, i)."""
        tasks, slots, channels, j, i = x.shape
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            features = self.network.features(x.view(tasks * slots, channels, 1, j, i))
        features = features.float().view(tasks, slots, -1, j * i).transpose(2, 3)  # (T, S, n, d)
        given, asked = features[:, :GIVEN].flatten(1, 2), features[:, GIVEN:].flatten(1, 2)
        sums = moments(given, labels[:, :GIVEN].flatten(1), weights[:, :GIVEN].flatten(1), MOST + 1)
        heads = solve_head(sums, self.log_ridge.exp())
        said = self.log_sharpness.exp() * (asked @ heads[..., :-1].transpose(1, 2) + heads[..., None, :, -1])
        missing = sums[..., -1, -1] <= 0  # of the given slices
        said = said.masked_fill(missing[:, None], _NEVER)
        return said.view(tasks, ASKED, j, i, -1).permute(0, 1, 4, 2, 3).flatten(0, 1).unsqueeze(2)


def loss_of(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and Dice loss of the asked slices; voxels of classes that the given ones do not show are left out."""
    asked, counts = (t[:, GIVEN:].flatten(0, 1).unsqueeze(1) for t in (labels, weights))
    counts = counts * (logits.detach().gather(1, asked.unsqueeze(1)).squeeze(1) > _NEVER / 2)
    by_task = zip(*(t.split(ASKED) for t in (logits, asked, counts)), strict=True)
    dice = torch.stack([soft_dice_loss(*task) for task in by_task])
    return weighted_cross_entropy(logits, asked, counts), dice.mean()


@torch.no_grad()
def dice_of(logits: Tensor, labels: Tensor, weights: Tensor) -> list[float]:
    """Of each task, the mean Dice of the segments that are asked for."""
    found = []
    asked, counts = (t[:, GIVEN:].flatten(0, 1) for t in (labels, weights))
    for said, truth, w in zip(*(t.split(ASKED) for t in (logits.argmax(1)[:, 0], asked, counts)), strict=True):
        values = []
        for c in truth.unique().tolist():
            a, b = (said == c) & (w > 0), (truth == c) & (w > 0)
            if c and b.any():
                values.append(float(2 * (a & b).sum() / (a.sum() + b.sum())))
        if values:
            found.append(sum(values) / len(values))
    return found


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def learn(options: argparse.Namespace) -> None:
    begun = time.monotonic()
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True  # a few canvases, over and over
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    volumes = make(options.seed, options.patients, options.volumes, options.makers)
    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    order = rng.permutation(len(volumes))
    held = max(1, round(HELD_OUT * len(volumes)))
    tasks, exam = (Tasks([volumes[n] for n in part], device) for part in (order[held:], order[:held]))
    say(f"{len(volumes)} volumes, {held} of them for questions only, after {time.monotonic() - begun:.0f} s")
    learner = Learner().to(device)
    average = deepcopy(learner).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=options.rate, weight_decay=1e-4)
    start, recent = time.monotonic(), []
    for step in range(options.steps):
        progress = max(step / options.steps, (time.monotonic() - begun) / (60 * options.minutes))
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        x, labels, weights = tasks.batch(rng, options.tasks)
        cross_entropy, dice = loss_of(learner(x, labels, weights, dtype), labels, weights)
        optimizer.zero_grad(set_to_none=True)
        (cross_entropy + dice).backward()
        norm = torch.nn.utils.clip_grad_norm_(learner.parameters(), 5.0)
        if torch.isfinite(norm):  # else a task without anything to learn from
            optimizer.step()
        decay = min(_EMA, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.parameters()), list(learner.parameters()), 1 - decay)
        recent.append(torch.stack([cross_entropy.detach(), dice.detach()]))
        if (step + 1) % options.log == 0:
            ce, dl = torch.stack(recent).nanmean(0).tolist()
            recent.clear()
            right = examined(average, exam, options, dtype)
            say(
                f"step {step + 1}, {time.monotonic() - start:.0f} s: cross-entropy {ce:.3f}, Dice loss {dl:.3f}; never learned from: Dice {right:.3f}"
            )
            save(average, options.out)
    save(average, options.out)


def examined(learner: Learner, exam: Tasks, options: argparse.Namespace, dtype: torch.dtype) -> float:
    """Mean Dice of the same tasks each time."""
    rng = np.random.default_rng(7)
    found: list[float] = []
    with torch.no_grad():
        for _ in range(options.exams):
            x, labels, weights = exam.batch(rng, options.tasks)
            found += dice_of(learner(x, labels, weights, dtype), labels, weights)
    return float(np.mean(found))


def save(learner: Learner, path: Path) -> None:
    weights = {name: t.detach().cpu() for name, t in learner.network.state_dict().items() if not name.startswith("head.")}
    Start(learner.network.plan, weights, learner.log_ridge.exp().item(), learner.log_sharpness.exp().item()).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop then, and lower the learning rate so that it ends there")
    parser.add_argument("--patients", type=Path)
    parser.add_argument("--out", type=Path, default=Path("start.pt"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tasks", type=int, default=TASKS, help="in a step")
    parser.add_argument("--volumes", type=int, default=SYNTHETIC)
    parser.add_argument("--makers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--log", type=int, default=250, help="steps between two lines of the log")
    parser.add_argument("--exams", type=int, default=12, help="batches of tasks that a line of the log is about")
    options = parser.parse_args()
    learn(options)


if __name__ == "__main__":
    main()
