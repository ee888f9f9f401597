"""The voxel weight map as coloured levels in the slice views. No qt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sparseseg.annotation.labels import build_annotation
from sparseseg.contract.box import planes

from ..scene import LevelMap
from ..scene.Grids import volumeGeometry
from ..scene.StrokeReader import Strokes
from ..scene.VolumeMemory import zeros
from .Background import Background
from .Parameters import Parameters


class WeightMap:
    def __init__(self, scene, parameters: Parameters, background: Background, complain: Callable) -> None:
        self._scene, self._parameters, self._background, self._complain = scene, parameters, background, complain

    @property
    def isShown(self) -> bool:
        return LevelMap.shown(self._scene) is not None

    def hide(self) -> None:
        LevelMap.hide(self._scene)

    def show(self, strokes: Strokes, engines: Path | None, waiting, then: Callable[[], None]) -> None:
        """engines: a file with the engine's own weights of these strokes, in which corrections weigh more, where it has written one."""
        settings = self._parameters.settings()

        def compute() -> LevelMap.Levels:
            shape = strokes.annotation.shape
            if engines is not None and engines.exists():
                weights = np.load(engines, mmap_mode="r")
                return LevelMap.Levels.of(weights.shape, lambda: weights)
            annotation = build_annotation(strokes.annotation, strokes.classes, settings, strokes.complete, zeros=zeros)
            return LevelMap.Levels.of(shape, lambda: (annotation.weights_in(plane)[0] for plane in planes(shape)))

        def show(levels: LevelMap.Levels) -> None:
            volume = self._parameters.getNode("volume")
            if volume is None or levels.memory.array.shape != volumeGeometry(volume).shape_kji:
                return
            with waiting():
                LevelMap.show(volume, levels, [self._parameters.getNode(name) for name in ("segmentation", "preview")])
            then()

        self._background.submit(compute, show, self._complain)
