"""Results to DICOM and segmentations back from it, by `sparseseg export` and `sparseseg import` in a child process. No qt.

So nothing of pydicom or highdicom is loaded into Slicer, and what takes seconds runs beside it. The child gets a private folder with the
labels, which is removed at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparseseg.contract.errors import OutputError, SparseSegError
from sparseseg.contract.folders import PrivateFolder
from sparseseg.io import SparseLabels, read_annotation, write_segmentation

from ..i18n import tr as _
from ..scene import DicomFiles, SceneImport
from ..scene.AppliedResult import withoutResult
from ..scene.Grids import volumeGeometry
from ..scene.KeptStrokes import tokenOf
from ..scene.SceneExport import takeSnapshot
from ..scene.StrokeReader import filledSegments, readResult
from .Background import Background
from .Controller import Controller
from .EngineSetup import EngineSetup, lastLine
from .States import Message

PACKAGES = ("pydicom>=3", "highdicom>=0.25", "contourpy>=1.2")  # the engine's extra `dicom`
PACKAGES_SIZE = "about 30 MB to download"
_TIMEOUT_S = 600


class MissingPackages(OutputError):
    """The engine's Python lacks the packages for DICOM."""


class DicomExchange:
    """`setup` runs the engine's Python. `askToInstall` is asked before packages are installed."""

    def __init__(self, controller: Controller, setup: EngineSetup, temporaryFolder: str) -> None:
        self._controller, self._setup, self._temporaryFolder = controller, setup, temporaryFolder
        self._background = Background("sparseseg dicom")
        self.busy = ""  # what is being done, in words
        self.askToInstall: Callable[[], bool] = lambda: False

    def poll(self) -> None:
        self._background.poll()

    def close(self) -> None:
        self._background.close()

    def resultNode(self):
        """The segmentation that holds an applied result. Raises OutputError where there is none."""
        controller = self._controller
        for node in (controller.segmentationNode, controller.parameters.getNode("applied")):
            if node is not None and tokenOf(node.GetSegmentation()):
                return node
        raise OutputError(_("There is no applied result to export."), _("Press Apply first; strokes are not exported."))

    def export(self, kind: str, path: Path) -> None:
        """The applied result as DICOM, "seg" or "rtstruct", into a file and Slicer's database."""
        volume, node = self._controller.volumeNode, self.resultNode()
        sources = DicomFiles.sourceFiles(volume)
        snapshot, leftOut = self._takeResult(node)

        def work() -> list[str]:
            labels, classes = readResult(snapshot)
            with PrivateFolder(self._temporaryFolder) as folder:
                segmentation = folder / "result.seg.nrrd"
                write_segmentation(segmentation, labels, snapshot.geometry, classes)
                return self._sparseseg("export", segmentation, _list(folder, sources), "-o", path, "--dicom", kind)

        def done(remarks: list[str]) -> None:
            registered = _("It is in Slicer's DICOM database too.") if DicomFiles.register(path) else ""
            exported = _("{name} was exported as {file}.").format(name=node.GetName(), file=path.name)
            self._say(f"{exported} {registered}".strip(), [*leftOut, *remarks])

        self._begin(_("exporting"), work, done, lambda: self.export(kind, path))

    def exportWithSlicer(self, folder: Path) -> None:
        """The applied result as DICOM SEG by Slicer's own exporter, which names the file, and during which Slicer does nothing else."""
        volume, node = self._controller.volumeNode, self.resultNode()
        snapshot, leftOut = self._takeResult(node)

        def done(segmentIDs: list[str]) -> None:
            with self._controller.complaining():
                if not segmentIDs or None in (volume.GetScene(), node.GetScene()):
                    sentence = _("{name} holds no voxels, or was deleted.").format(name=node.GetName())
                    raise OutputError(sentence, _("Choose an applied result."))
                with self._controller.waiting():
                    DicomFiles.exportWithSlicer(node, volume, segmentIDs, folder)
                self._say(_("{name} was exported by Slicer's exporter.").format(name=node.GetName()), leftOut)

        self._begin(_("exporting"), lambda: filledSegments(snapshot), done, lambda: None)

    def _takeResult(self, node) -> tuple[Any, list[str]]:
        """A snapshot of what was applied, or is kept as it is, and a remark on segments that hold neither."""
        segmentation, parameters = node.GetSegmentation(), self._controller.parameters
        missing = withoutResult(segmentation, [*parameters.get("locked"), *parameters.get("unused")])
        names = ", ".join(segmentation.GetSegment(sid).GetName() for sid in missing)
        remarks = [_("Left out, because no result was applied to it: {names}.").format(names=names)] if missing else []
        return takeSnapshot(node, self._controller.volumeNode, missing, results=True), remarks

    def _say(self, sentence: str, remarks: list[str]) -> None:
        self._controller.say(Message("warning" if remarks else "info", sentence, " ".join(remarks)))

    def load(self, path: Path) -> None:
        """A DICOM SEG becomes a segmentation on the volume's grid, and the input."""
        volume = self._controller.volumeNode
        sources, geometry = DicomFiles.sourceFiles(volume), volumeGeometry(volume)

        def work() -> tuple[SparseLabels, Any, list[str]]:
            with PrivateFolder(self._temporaryFolder) as folder:
                segmentation = folder / "loaded.seg.nrrd"
                remarks = self._sparseseg("import", path, _list(folder, sources), "-o", segmentation)
                loaded = read_annotation(segmentation, geometry)
            return loaded, SceneImport.boundingBox(loaded.annotation), remarks

        def done(outcome: tuple[SparseLabels, Any, list[str]]) -> None:
            loaded, box, remarks = outcome
            if volume.GetScene() is None or self._controller.volumeNode is not volume:
                return
            node = SceneImport.makeLoaded(volume, path.stem, loaded.annotation, box, loaded.classes)
            self._controller.setSegmentation(node)
            self._say(_("{file} was loaded as {name}.").format(file=path.name, name=node.GetName()), remarks)

        self._begin(_("loading"), work, done, lambda: self.load(path))

    def install(self, then: Callable[[], None]) -> None:
        """The packages, into a folder beside the engine's Python; then what needed them, once more."""

        def work() -> None:
            done = self._setup.installPackages(PACKAGES)
            if done.returncode:
                sentence = _("The packages for DICOM could not be installed: {reason}").format(reason=lastLine(done.stderr))
                raise OutputError(sentence, _("Look at the log; try again later."))

        self._begin(_("installing the packages for DICOM"), work, lambda __: then(), lambda: None)

    def _begin(self, what: str, work: Callable[[], Any], done: Callable[[Any], None], again: Callable[[], None]) -> None:
        def finished(outcome: Any) -> None:
            self.busy = ""
            done(outcome)
            self._controller.changed()

        def failed(error: BaseException) -> None:
            self.busy = ""
            if isinstance(error, MissingPackages) and self.askToInstall():
                self.install(again)
            else:
                self._controller.complain(error)
            self._controller.changed()

        self.busy = what
        self._background.submit(work, finished, failed)
        self._controller.changed()

    def _sparseseg(self, *arguments: object) -> list[str]:
        """Runs one command to its end; its warnings. Raises what it says."""
        done = self._setup.engine(*map(str, arguments), timeout=_TIMEOUT_S)
        if done.returncode:
            text = lastLine(done.stderr).removeprefix("sparseseg: ")
            kind = MissingPackages if "is not installed" in text else SparseSegError
            raise kind(text or _("The engine ended with exit code {code}.").format(code=done.returncode))
        return [line.removeprefix("warning: ") for line in done.stderr.splitlines() if line.startswith("warning: ")]


def _list(folder: Path, paths: list[Path]) -> Path:
    """A text file that names the series' files, one a line."""
    listed = folder / "series.txt"
    listed.write_text("\n".join(map(str, paths)), encoding="utf-8")
    return listed
