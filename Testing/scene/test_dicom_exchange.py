"""What leaves for the archive: the result, never strokes nor the background, by our export and by Slicer's. And what comes back from it."""

import contextlib
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from applying import STROKES, Session, resultOf
from scenes import SHAPE, makeSegmentation, makeVolume, paint, voxels

from host.dicom_exporter import Exporter
from sparseseg.contract.classes import ClassTable, Segment
from sparseseg.io import files
from SparseSegSlicerLib.scene.Grids import volumeGeometry
from SparseSegSlicerLib.scene.Segments import backgroundSegmentID, markBackground, tagValue
from SparseSegSlicerLib.session.DicomExchange import DicomExchange
from SparseSegSlicerLib.session.Parameters import Parameters

EXTRA = voxels((5, 6, slice(4, 8)))


class Host:
    """A Controller's part in it, and the engine's: `engine` keeps what it would export, and gives what it would import."""

    def __init__(self, scene, volume, node, folder):
        self.scene, self.volumeNode, self.segmentationNode, self.folder = scene, volume, node, folder
        self.parameters, self.messages, self.exported, self.imported = Parameters(scene), [], [], None
        self.parameters.setNode("segmentation", node)
        self.waiting = contextlib.nullcontext
        self.exchange = DicomExchange(self, SimpleNamespace(engine=self.engine), str(folder))

    def engine(self, *arguments, timeout):
        words = list(map(str, arguments))
        target = Path(words[words.index("-o") + 1])
        if "export" in words:
            self.exported.append(files.read_annotation(Path(words[words.index("export") + 1]), volumeGeometry(self.volumeNode)))
            target.write_bytes(b"DICM")
        else:
            files.write_annotation(target, self.imported[0], volumeGeometry(self.volumeNode), self.imported[1])
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    def say(self, message):
        self.messages.append(message)

    def complain(self, error):
        self.messages.append(SimpleNamespace(level="error", text=lambda: str(error)))

    @contextlib.contextmanager
    def complaining(self):
        try:
            yield
        except Exception as error:
            self.complain(error)

    def changed(self):
        pass

    def setSegmentation(self, node):
        self.segmentationNode = node

    def finish(self):
        end = time.monotonic() + 20
        while self.exchange.busy:
            assert time.monotonic() < end
            self.exchange.poll()
            time.sleep(0.01)
        return self.messages[-1]


@pytest.fixture
def slicers(scene_host, monkeypatch):
    import slicer

    Exporter.exported, Exporter.asked = [], []
    monkeypatch.setattr(slicer.modules, "dicomPlugins", {"DICOMSegmentationPlugin": Exporter}, raising=False)
    return Exporter


@pytest.fixture
def applied(scene_host, tmp_path, monkeypatch):
    """A result in a segmentation with strokes and a background, and a series in Slicer's database."""
    import slicer

    session = Session(scene_host)
    image = tmp_path / "image.dcm"
    image.write_bytes(b"DICM")
    session.volume.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    database = SimpleNamespace(isOpen=True, fileForInstance=lambda uid: str(image), insert=lambda *_: None)
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    session.host = Host(scene_host.scene, session.volume, session.node, tmp_path)
    session.apply(resultOf())
    yield session
    session.host.exchange.close()


def ours(session):
    session.host.exchange.export("seg", session.host.folder / "out.dcm")
    message = session.host.finish()
    assert message.level != "error", message.text()
    loaded = session.host.exported[-1]
    labels = np.maximum(loaded.annotation, 1) - 1
    return {segment.name: labels == value for value, segment in enumerate(loaded.classes.segments, start=1) if (labels == value).any()}, message


def slicersOwn(session):
    session.host.exchange.exportWithSlicer(session.host.folder)
    message = session.host.finish()
    assert message.level != "error", message.text()
    folder, segments = Exporter.exported[-1]
    assert folder == str(session.host.folder)
    return {name: array > 0 for name, (_, _, array) in segments.items()}, message


@pytest.mark.parametrize("way", [ours, slicersOwn])
def test_the_result_is_exported_without_background_and_without_strokes(applied, slicers, way):
    nodes = applied.node.GetScene().GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
    segments, message = way(applied)
    assert {name: mask.tolist() for name, mask in segments.items()} == {"a": (resultOf() == 1).tolist(), "b": (resultOf() == 2).tolist()}
    assert message.level == "info"
    assert applied.node.GetScene().GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == nodes
    assert np.count_nonzero(applied.strokes) and slicers.asked == []


@pytest.mark.parametrize("way", [ours, slicersOwn])
def test_a_result_that_was_corrected_is_exported_as_it_is_seen(applied, slicers, way):
    applied.paint("a", EXTRA)
    segments, _ = way(applied)
    assert np.array_equal(segments["a"], (resultOf() == 1) | (EXTRA > 0))


@pytest.mark.parametrize("way", [ours, slicersOwn])
def test_a_structure_of_strokes_alone_is_left_out_and_named(applied, slicers, way):
    applied.node.GetSegmentation().AddEmptySegment("new", "Tumour")
    paint(applied.node, "new", EXTRA)
    segments, message = way(applied)
    assert set(segments) == {"a", "b"}
    assert message.level == "warning" and "no result was applied to it: Tumour." in message.text()


@pytest.mark.parametrize("way", [ours, slicersOwn])
def test_a_segment_that_is_kept_as_it_is_is_exported(applied, slicers, way):
    applied.node.GetSegmentation().AddEmptySegment("done", "Done before")
    paint(applied.node, "done", EXTRA)
    applied.host.parameters.set("locked", ["done"])
    segments, message = way(applied)
    assert np.array_equal(segments["Done before"], EXTRA > 0) and message.level == "info"


def test_an_empty_segment_costs_no_question(applied, slicers):
    labels = resultOf()
    labels[labels == 2] = 0
    applied.apply(labels)
    segments, _ = slicersOwn(applied)
    assert set(segments) == {"a"} and slicers.asked == []


def test_slicers_exporter_gets_what_it_asks_for(applied, slicers):
    slicersOwn(applied)
    _, segments = slicers.exported[-1]
    assert {name: (code, kind) for name, (code, kind, _) in segments.items()} == dict.fromkeys("ab", ("85756007", "SEMIAUTOMATIC"))


def test_a_refusal_of_slicers_exporter_is_told_and_leaves_nothing(applied, slicers):
    applied.volume.RemoveAttribute("DICOM.instanceUIDs")
    nodes = applied.node.GetScene().GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
    applied.host.exchange.exportWithSlicer(applied.host.folder)
    message = applied.host.finish()
    assert message.level == "error" and "Referenced volume is not found" in message.text()
    assert applied.node.GetScene().GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == nodes


def test_whoever_exports_the_users_segmentation_calls_the_background_no_tissue(applied, slicers):
    """Slicer's Export to DICOM takes every segment that is not empty, hidden ones too."""
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    exporter = slicers()
    assert exporter.export(exporter.examineForExport(hierarchy.GetItemByDataNode(applied.node))) == ""
    _, segments = slicers.exported[-1]
    assert {name: code for name, (code, _, _) in segments.items()} == {"a": "85756007", "b": "85756007", "Background": "125040"}


def test_a_terminology_that_was_chosen_for_the_background_stays(scene_host):
    segment = makeSegmentation(scene_host.scene, "background").GetSegmentation().GetSegment("background")
    name = segment.GetTerminologyEntryTagName()
    segment.SetTag(name, "Mine~SCT^1^Air~SCT^2^Air~^^~Mine~^^~^^")
    markBackground(segment)
    assert tagValue(segment, name).startswith("Mine")


@pytest.mark.parametrize("named", [True, False])
def test_a_loaded_seg_has_its_own_segments_and_no_other(scene_host, tmp_path, monkeypatch, named):
    import slicer

    image = tmp_path / "image.dcm"
    image.write_bytes(b"DICM")
    monkeypatch.setattr(slicer, "dicomDatabase", SimpleNamespace(isOpen=True, fileForInstance=lambda uid: str(image)), raising=False)
    volume = makeVolume(scene_host.scene)
    volume.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    host = Host(scene_host.scene, volume, None, tmp_path)
    background = Segment("bg", "Background", (0.5, 0.5, 0.5)) if named else None
    annotation = np.zeros(SHAPE, np.uint8)
    annotation[STROKES["a"] > 0] = 2
    annotation[STROKES["background"] > 0] = 1 if named else 0
    host.imported = annotation, ClassTable((Segment("liver", "Liver", (0.8, 0.5, 0.3)),), background)
    host.exchange.load(tmp_path / "seg.dcm")
    assert host.finish().level == "info"
    segmentation = host.segmentationNode.GetSegmentation()
    assert sorted(segmentation.GetSegment(sid).GetName() for sid in segmentation.GetSegmentIDs()) == (["Background"] if named else []) + ["Liver"]
    assert bool(backgroundSegmentID(segmentation)) == named
    host.exchange.close()
