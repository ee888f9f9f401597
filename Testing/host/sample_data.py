"""Slicer's Python module SampleData, as far as a source of another module meets it. A download is a file: URI, or fails."""

import shutil
import urllib.parse
import urllib.request
from pathlib import Path

import slicer


class SampleDataSource:
    """What one button of the module downloads."""

    def __init__(
        self,
        sampleName=None,
        sampleDescription=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        checksums=None,
        loadFiles=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileTypes=None,
        loadFileProperties=None,
    ):
        self.sampleName, self.sampleDescription = sampleName, sampleDescription or sampleName
        count = len(uris)
        self.uris, self.fileNames = uris, fileNames
        self.nodeNames, self.checksums = nodeNames or [None] * count, checksums or [None] * count
        self.loadFiles, self.loadFileTypes = loadFiles or [None] * count, loadFileTypes or [None] * count
        self.customDownloader, self.thumbnailFileName, self.loadFileProperties = customDownloader, thumbnailFileName, loadFileProperties or {}
        fields = (uris, fileNames, self.nodeNames, self.loadFiles, self.loadFileTypes, self.checksums)
        if len({len(field) for field in fields}) != 1:
            raise ValueError("All fields of sample data source must have the same length")

    def __eq__(self, other):
        return str(self) == str(other)

    def __str__(self):
        return (
            f"{self.sampleName} {self.thumbnailFileName} {self.customDownloader} {list(zip(self.fileNames, self.uris, self.nodeNames, strict=True))}"
        )


class SampleDataLogic:
    """`downloadFromSource` never calls a source's `customDownloader`; the module's button does nothing else where there is one."""

    @staticmethod
    def sampleDataSourcesByCategory(category=None):
        if not hasattr(slicer.modules, "sampleDataSources"):
            slicer.modules.sampleDataSources = {}
        sources = slicer.modules.sampleDataSources
        return sources if category is None else sources.get(category, [])

    def press(self, source):
        """A click on the source's button."""
        return source.customDownloader(source) if source.customDownloader else self.downloadFromSource(source)

    def downloadSamples(self, sampleName):
        sources = [source for sources in slicer.modules.sampleDataSources.values() for source in sources if source.sampleName == sampleName]
        return self.downloadFromSource(sources[0]) if sources else []

    def downloadSample(self, sampleName):
        return self.downloadSamples(sampleName)[0]

    def downloadFromSource(self, source):
        folder = Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory())
        fields = zip(source.uris, source.fileNames, source.nodeNames, source.checksums, source.loadFiles, source.loadFileTypes, strict=False)
        return [self._load(self._download(uri, folder / file), name) for uri, file, name, *_ in fields]

    def _download(self, uri, path):
        if not path.exists():
            shutil.copyfile(urllib.request.url2pathname(urllib.parse.urlparse(uri).path), path)
        return path

    def _load(self, path, name):
        """By the reader for the file's ending; it shows a volume in the slice views."""
        if not path.name.endswith(".seg.nrrd"):
            return slicer.modules.volumes.logic().AddArchetypeVolume(str(path), name, 0)
        node, storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name), slicer.vtkMRMLSegmentationStorageNode()
        storage.SetFileName(str(path))
        storage.ReadData(node)
        return node
