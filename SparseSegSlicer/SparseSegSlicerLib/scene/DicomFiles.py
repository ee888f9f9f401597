"""Which DICOM files a volume came from, Slicer's DICOM database, and Slicer's own exporter. No qt; each needs Slicer's DICOM module."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import slicer

from sparseseg.contract.errors import InputError, OutputError

from ..i18n import tr as _
from .SceneImport import placeInStudy

_INSTANCES = "DICOM.instanceUIDs"  # attribute of a volume that Slicer's DICOM module loaded
_EXPORTER = "DICOMSegmentationPlugin"  # of the extension QuantitativeReporting; from 5.12 on, of Slicer


def instanceUIDs(volumeNode) -> tuple[str, ...]:
    """SOP Instance UIDs of the images that a volume was loaded from; empty for a volume from elsewhere."""
    return tuple(dict.fromkeys((volumeNode.GetAttribute(_INSTANCES) or "").split()))


def sourceFiles(volumeNode) -> list[Path]:
    """The files of a volume's series. Raises InputError where it has none, or Slicer's database knows them no longer."""
    uids = instanceUIDs(volumeNode)
    if not uids:
        sentence = _("{name} was not loaded from DICOM.").format(name=volumeNode.GetName())
        raise InputError(sentence, _("Load the series with the DICOM module, and segment that volume."))
    database = _database()
    paths = [Path(database.fileForInstance(uid) or "") for uid in uids] if database is not None else []
    if not paths or not all(path.is_file() for path in paths):
        sentence = _("The DICOM files of {name} are not in Slicer's database any more.").format(name=volumeNode.GetName())
        raise InputError(sentence, _("Import the series again in the DICOM module, or use 'sparseseg export' on the command line."))
    return list(dict.fromkeys(paths))


def register(path: Path) -> bool:
    """Copies a written file into Slicer's database, where the DICOM module shows it in its study; False where no database is open."""
    database = _database()
    if database is None:
        return False
    database.insert(str(path), True, False)  # stored; without a thumbnail
    return True


def hasSlicersExporter() -> bool:
    return _EXPORTER in getattr(slicer.modules, "dicomPlugins", {})


def exportWithSlicer(segmentationNode, volumeNode, segmentIDs: Collection[str], folder: Path) -> None:
    """DICOM SEG of some segments, all of which have voxels, by Slicer's exporter, which registers the file too and takes the main thread. It exports
    whatever a segmentation holds, shown or hidden, so it gets one with these alone. Raises OutputError with its own words."""
    scene, exporter = segmentationNode.GetScene(), slicer.modules.dicomPlugins[_EXPORTER]()
    node = _copyOf(segmentationNode, volumeNode, segmentIDs)
    try:
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        exportables = exporter.examineForExport(hierarchy.GetItemByDataNode(node))
        if not exportables:
            raise OutputError(_("Slicer's exporter does not take this segmentation."), _("See Slicer's log, or export without it."))
        for exportable in exportables:
            exportable.directory = str(folder)
        error = exporter.export(exportables)
    finally:
        scene.RemoveNode(node)
    if error:
        sentence = _("Slicer's exporter failed: {error}").format(error=error)
        raise OutputError(sentence, _("Choose a terminology for each segment, or export without it."))


def _copyOf(segmentationNode, volumeNode, segmentIDs: Collection[str]):
    """A segmentation that nobody sees, with the same name, in the volume's study."""
    node = segmentationNode.GetScene().AddNewNodeByClass("vtkMRMLSegmentationNode", segmentationNode.GetName())
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    node.SetAndObserveTransformNodeID(segmentationNode.GetTransformNodeID())
    for sid in segmentIDs:
        node.GetSegmentation().CopySegmentFromSegmentation(segmentationNode.GetSegmentation(), sid, False)
    placeInStudy(node, volumeNode)
    return node


def _database():
    database = getattr(slicer, "dicomDatabase", None)
    return database if database is not None and database.isOpen else None
