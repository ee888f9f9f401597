"""Volume -> label map: overlapping tiles, each decides its own core, argmax at once; no full-resolution float volume per class, ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .augment import offsets, position
from .device import Compute
from .patches import tile_cores
from .prior import Prior
from .unet import Triple, UNet3d

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Fusion:
    """How network and prior are mixed: score_c = t_c p_c + (1 - t_c) q_c, with p the network's softmax, q the prior's belief, and t the trust,
    one number in 0..1 for each class (background first)."""

    prior: Prior
    trust: np.ndarray

    def scores(self, probabilities: Tensor, box: Box) -> Tensor:
        """probabilities (C, k, j, i) of the box -> scores (C, k, j, i)."""
        device = probabilities.device
        label, confidence = (torch.from_numpy(a[box]).to(device) for a in (self.prior.label, self.prior.confidence))
        trust = torch.from_numpy(self.trust.astype(np.float32)).to(device).view(-1, 1, 1, 1)
        return prior_belief(label, confidence, len(probabilities)).lerp_(probabilities, trust)


def prior_belief(label: Tensor, confidence: Tensor, classes: int) -> Tensor:
    """The prior as probabilities (classes, ...) float32: label and confidence (...) uint8. The confidence lies between all classes alike (0)
    and only the label (255), so that the label is always the most probable."""
    certain = confidence.float() / 255
    shared = ((1 - certain) / classes).expand(classes, *label.shape).clone()
    return shared.scatter_add_(0, label.long()[None], certain[None])


@torch.no_grad()
def tile_probabilities(
    network: UNet3d, image: Tensor, tile_kji: Triple, compute: Compute, whole: tuple[Sequence[int], Sequence[int]] | None = None
) -> Iterator[tuple[Box, Tensor]]:
    """(box, softmax (C, k, j, i) float32) for boxes that together cover the image, (K, J, I) float16 on the device, each voxel once.

    whole: (first voxel of this image in the volume that the network was trained on, that volume's shape); None: another volume.
    """
    tile_kji = tuple(min(t, n) for t, n in zip(tile_kji, image.shape, strict=True))  # type: ignore[assignment]
    base = offsets(tile_kji, image.device) + torch.tensor([(t - 1) / 2 for t in tile_kji], device=image.device).view(3, 1, 1, 1)
    k_cores, j_cores, i_cores = (tile_cores(n, t, min(t // 4, n - 1)) for n, t in zip(image.shape, tile_kji, strict=True))
    for k in k_cores:
        for j in j_cores:
            for i in i_cores:
                tile = tuple(slice(c[0], c[0] + t) for c, t in zip((k, j, i), tile_kji, strict=True))
                first = whole[0] if whole else (0, 0, 0)
                corner = torch.tensor([s.start + f for s, f in zip(tile, first, strict=True)], dtype=torch.float32, device=image.device)
                places = position(base + corner.view(3, 1, 1, 1), whole[1] if whole else image.shape, known=whole is not None)
                part = torch.cat([image[tile].float()[None], places])[None].contiguous(memory_format=torch.channels_last_3d)
                with torch.autocast(compute.device.type, compute.dtype, enabled=compute.dtype != torch.float32):
                    logits = network(part)[0]
                core = tuple(slice(first - start, last - start) for start, first, last in (k, j, i))
                box = tuple(slice(first, last) for _, first, last in (k, j, i))
                yield box, torch.softmax(logits[(slice(None), *core)].float(), 0)  # type: ignore[misc]


def predict(
    network: UNet3d, image: Tensor, tile_kji: Triple, compute: Compute, fusion: Fusion | None = None, known: bool = True, tick: Callable[[float], None] = lambda _: None
) -> tuple[np.ndarray, np.ndarray]:
    """image (K, J, I) float16 on the device -> dense (K, J, I) uint8 and uncertainty (K, J, I) uint8, 0 sure .. 255 two classes alike.

    `tick` is called after every tile with the share that is done; it may raise.
    """
    shape = tuple(image.shape)
    dense, uncertainty = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    done = 0
    for box, probabilities in tile_probabilities(network, image, tile_kji, compute, ((0, 0, 0), shape) if known else None):
        scores = probabilities if fusion is None else fusion.scores(probabilities, box)
        best = scores.topk(2, dim=0)
        dense[box] = best.indices[0].to(torch.uint8).cpu().numpy()
        uncertainty[box] = (255 * (1 - (best.values[0] - best.values[1]))).clamp_(0, 255).to(torch.uint8).cpu().numpy()
        done += dense[box].size
        tick(done / dense.size)
    return dense, uncertainty
