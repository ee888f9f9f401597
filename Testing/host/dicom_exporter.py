"""Slicer's DICOM SEG exporter, up to where it starts a program: which segments of a segmentation it takes, what it asks and what it refuses.

QuantitativeReporting's and Slicer 5.12's `DICOMSegmentationPluginClass` have the same rules: every segment that is not empty, shown or hidden.
"""

from types import SimpleNamespace

import slicer
import vtk
from vtk.util import numpy_support

LABELMAP = "Binary labelmap"


class Exporter:
    """`exported` gets, for each call, (folder, {segment's name: (code of its type, algorithm, voxels as label map array)}); `asked` the questions."""

    exported, asked = [], []

    def examineForExport(self, item):
        node = _hierarchy().GetItemDataNode(item)
        if node is None or not node.IsA("vtkMRMLSegmentationNode"):
            return []
        return [SimpleNamespace(subjectHierarchyItemID=item, directory="", name=node.GetName())]

    def export(self, exportables):
        try:
            for exportable in exportables:
                self._export(_hierarchy().GetItemDataNode(exportable.subjectHierarchyItemID), exportable.directory)
        except ValueError as error:
            return str(error)
        return ""

    def _export(self, node, folder):
        volume = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
        if volume is None or not volume.GetAttribute("DICOM.instanceUIDs"):
            raise ValueError("Referenced volume is not found for the segmentation.")
        segmentation = node.GetSegmentation()
        segments = [segmentation.GetSegment(sid) for sid in segmentation.GetSegmentIDs()]
        taken = [segment for segment in segments if not _isEmpty(segment)]
        if not taken:
            raise ValueError("No non empty segments found.")
        if len(taken) < len(segments):
            self.asked.append("Empty segments found in segmentation.")
        self.exported.append((folder, {segment.GetName(): self._described(segment, node, volume) for segment in taken}))

    def _described(self, segment, node, volume):
        entry = slicer.vtkSlicerTerminologyEntry()
        slicer.modules.terminologies.logic().DeserializeTerminologyEntry(_tag(segment, segment.GetTerminologyEntryTagName()), entry)
        if None in (entry.GetCategoryObject(), entry.GetTypeObject()):
            raise ValueError(f"Segment {segment.GetName()} has missing attributes. Make sure to set terminology.")
        kind = _tag(segment, "DICOM.SegmentAlgorithmType") or "MANUAL"
        if kind != "MANUAL" and not _tag(segment, "DICOM.SegmentAlgorithmName"):
            raise ValueError(f"Segment {segment.GetName()} has missing SegmentAlgorithmName.")
        sid = node.GetSegmentation().GetSegmentIdBySegment(segment)
        voxels = slicer.util.arrayFromSegmentBinaryLabelmap(node, sid, volume)
        return entry.GetTypeObject().GetCodeValue(), kind, voxels


def _isEmpty(segment):
    """As the exporter does: by the whole layer, which other segments may share."""
    image = segment.GetRepresentation(LABELMAP)
    scalars = None if image is None else image.GetPointData().GetScalars()
    return scalars is None or not numpy_support.vtk_to_numpy(scalars).any()


def _tag(segment, name):
    value = vtk.mutable("")
    return str(value) if segment.GetTag(name, value) else ""


def _hierarchy():
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
