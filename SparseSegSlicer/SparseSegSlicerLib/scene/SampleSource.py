"""The phantom in Slicer's module Sample Data: its button calls a function, `SampleData.downloadSample` loads files and calls none. No qt."""

from __future__ import annotations

from pathlib import Path

import slicer

from .SamplePhantom import FILES, NAME, addPhantom, writePhantom

CATEGORY = "Sparse Segmentation"


def registerPhantom(sampleData, thumbnail: str) -> None:
    """sampleData: Slicer's Python module SampleData."""

    class Phantom(sampleData.SampleDataSource):
        """Its files are written when they are asked for, not when Slicer starts."""

        @property
        def uris(self) -> list[str]:
            return [path.as_uri() for path in writePhantom(Path(slicer.app.temporaryPath))]

        @uris.setter
        def uris(self, _) -> None:
            """The base class sets what it was given."""

        def __str__(self) -> str:  # sources are compared by it; the base class would ask for the files
            return f"{CATEGORY}: {self.sampleName}"

    names = [NAME, f"{NAME} segmentation"]
    source = Phantom(NAME, uris=[""] * len(FILES), fileNames=[*FILES], nodeNames=names, customDownloader=_download, thumbnailFileName=thumbnail)
    sources = sampleData.SampleDataLogic.sampleDataSourcesByCategory().setdefault(CATEGORY, [])
    if source not in sources:
        sources.append(source)


def _download(_source) -> list:
    """Shown as Slicer shows a volume that it has loaded; the nodes."""
    volume, strokes = addPhantom()
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    return [volume, strokes]
