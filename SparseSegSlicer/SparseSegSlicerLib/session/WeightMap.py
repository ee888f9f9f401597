"""The voxel weight map as a coloured overlay in the slice views. No qt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sparseseg.annotation.labels import build_annotation

from ..scene import SceneImport, SliceViews
from ..scene.Grids import volumeGeometry
from ..scene.StrokeReader import Strokes
from .Background import Background
from .Parameters import Parameters


class WeightMap:
    def __init__(self, parameters: Parameters, background: Background, complain: Callable) -> None:
        self._parameters, self._background, self._complain = parameters, background, complain

    @property
    def isShown(self) -> bool:
        return self._parameters.getNode("weights") is not None

    def hide(self) -> None:
        node, volume = self._parameters.getNode("weights"), self._parameters.getNode("volume")
        if node is not None:
            SliceViews.showOverlay(volume or node, None, 0.0)
            node.GetScene().RemoveNode(node)

    def show(self, strokes: Strokes, engines: Path | None, waiting, then: Callable[[], None]) -> None:
        """engines: a file with the engine's own weights of these strokes, in which corrections weigh more, where it has written one."""
        settings = self._parameters.settings()

        def compute() -> np.ndarray:
            if engines is not None and engines.exists():
                return np.load(engines)
            return build_annotation(strokes.annotation, strokes.classes, settings, strokes.complete).weights

        def show(weights: np.ndarray) -> None:
            volume = self._parameters.getNode("volume")
            if volume is None or weights.shape != volumeGeometry(volume).shape_kji:
                return
            with waiting():
                node = SceneImport.showVolume(volume, self._parameters.getNode("weights"), "Weight map", weights, "ColdToHotRainbow")
                self._parameters.setNode("weights", node)
                SliceViews.showOverlay(volume, node, 0.6)
            then()

        self._background.submit(compute, show, self._complain)
