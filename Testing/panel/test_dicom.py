"""From the panel to DICOM and back: a volume with a series behind it, the real export in a child process, a scripted DICOM database."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from driving import apply, train, wait

import dicoms
from sparseseg.io import dicomseg, files


class Database:
    """What of ctkDICOMDatabase the module uses."""

    isOpen = True

    def __init__(self, files):
        self.files, self.inserted = files, []

    def fileForInstance(self, uid):
        return self.files.get(uid, "")

    def insert(self, path, store, thumbnail):
        self.inserted.append((path, store, thumbnail))


@pytest.fixture
def series(host, panel, begin, tmp_path, monkeypatch):
    """The sample, with DICOM files that it could have been loaded from; in a folder with a space and accents."""
    import slicer

    from SparseSegSlicerLib.scene.Grids import volumeArray, volumeGeometry

    volume, _ = begin()
    written = dicoms.write_series(tmp_path / "Bilder für Ärzte", volumeArray(volume), volumeGeometry(volume), intercept=0)
    database = Database({str(dicoms.pydicom.dcmread(path).SOPInstanceUID): str(path) for path in written})
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    volume.SetAttribute("DICOM.instanceUIDs", " ".join(database.files))
    return SimpleNamespace(volume=volume, database=database, folder=written[0].parent)


def exported(host, panel, path):
    host.answers["QFileDialog", "getSaveFileName"] = str(path)
    host.click(panel.ui.dicomExportButton)
    wait(host, panel, lambda: path.exists() and not panel.dicom.exchange.busy)
    return path


@pytest.fixture
def applied(host, panel, series):
    train(host, panel)
    apply(host, panel)
    panel.ui.dicomSection.collapsed = False
    host.spin(0.25)
    return series


@pytest.mark.slow
def test_the_applied_result_goes_to_dicom_and_comes_back_voxel_by_voxel(host, panel, applied, picture, tmp_path):
    job = panel.controller.run.folder
    assert set(json.loads((job / "job.json").read_text(encoding="ascii"))["source_uids"]) == set(applied.database.files)
    path = exported(host, panel, tmp_path / "Ergebnis é.dcm")
    assert applied.database.inserted == [(str(path), True, False)]
    assert "was exported" in panel.ui.messageLabel.text
    assert "No terminology" in panel.ui.messageLabel.text or panel.controller.message.level == "info"
    picture("dicom-exported")
    source = files.read_volume(applied.folder)
    back = dicomseg.read_seg(path, source.geometry)
    assert (np.maximum(back.annotation, 1) - 1 == panel.controller.preview.labels).all()
    assert back.classes.ids == panel.controller.preview.classes.ids
    assert dicoms.NAME not in (job / "job.json").read_text(encoding="ascii")

    panel.ui.dicomKindBox.currentIndex = 1
    structures = exported(host, panel, tmp_path / "contours.dcm")
    assert dicoms.pydicom.dcmread(structures).Modality == "RTSTRUCT"

    host.answers["QFileDialog", "getOpenFileName"] = str(path)
    host.click(panel.ui.dicomLoadButton)
    wait(host, panel, lambda: panel.controller.segmentationNode.GetName() == path.stem)
    wait(host, panel, lambda: panel.controller.strokes is not None)
    assert (np.maximum(panel.controller.strokes.annotation, 1) - 1 == np.maximum(back.annotation, 1) - 1).all()
    assert panel.controller.strokes.classes.ids == back.classes.ids and panel.controller.strokes.notes == ()


def test_strokes_are_not_exported(host, panel, series):
    panel.ui.dicomSection.collapsed = False
    host.click(panel.ui.dicomExportButton)
    assert "Press Apply first" in panel.controller.message.text()


@pytest.mark.slow
def test_a_volume_from_elsewhere_or_lost_files_are_said_before_a_name_is_asked_for(host, panel, applied):
    applied.database.files.clear()
    host.click(panel.ui.dicomExportButton)
    assert "not in Slicer's database any more" in panel.controller.message.text()
    applied.volume.RemoveAttribute("DICOM.instanceUIDs")
    host.click(panel.ui.dicomExportButton)
    assert "was not loaded from DICOM" in panel.controller.message.text()


@pytest.mark.slow
def test_what_the_export_refuses_is_said_in_its_words(host, panel, applied, tmp_path):
    Path(next(iter(applied.database.files.values()))).write_bytes(b"")
    host.answers["QFileDialog", "getSaveFileName"] = str(tmp_path / "no.dcm")
    host.click(panel.ui.dicomExportButton)
    host.spin(until=lambda: panel.controller.message.level == "error", timeout_s=60)
    assert "is no DICOM file" in panel.controller.message.text()
    assert not (tmp_path / "no.dcm").exists()


@pytest.mark.slow
def test_packages_are_installed_only_after_a_yes_and_then_the_export_goes_on(host, panel, applied, tmp_path, monkeypatch):
    from SparseSegSlicerLib.session.States import Message

    real, installed = panel.install.setup.engine, []

    def install(packages):
        installed.append(packages)
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    def engine(*arguments, timeout):
        if not installed:
            return SimpleNamespace(returncode=2, stdout="", stderr="sparseseg: DICOM needs the package pydicom, which is not installed.\n")
        return real(*arguments, timeout=timeout)

    monkeypatch.setattr(panel.install.setup, "engine", engine)
    monkeypatch.setattr(panel.install.setup, "installPackages", install)
    host.answers["QFileDialog", "getSaveFileName"] = str(tmp_path / "a.dcm")
    host.answers["QMessageBox", "question"] = _cancel()
    host.click(panel.ui.dicomExportButton)
    host.spin(until=lambda: panel.controller.message.level == "error", timeout_s=60)
    assert "not installed" in panel.controller.message.text() and not installed
    assert str(panel.install.setup.packages) in host.dialogs[-1][2][2] and "its pydicom too" in host.dialogs[-1][2][2]

    host.answers["QMessageBox", "question"] = _ok()
    panel.controller.say(Message("info", "Once more."))
    exported(host, panel, tmp_path / "a.dcm")
    assert "highdicom" in " ".join(installed[0])


@pytest.fixture
def slicers(host, monkeypatch):
    """Slicer's own exporter, there before the panel is made."""
    import slicer

    from host.dicom_exporter import Exporter

    Exporter.exported, Exporter.asked = [], []
    monkeypatch.setattr(slicer.modules, "dicomPlugins", {"DICOMSegmentationPlugin": Exporter}, raising=False)
    return Exporter


def test_slicers_own_exporter_is_offered_where_it_is(host, slicers, panel):
    assert [panel.ui.dicomKindBox.itemText(n) for n in range(3)][2] == "Segmentation (SEG), by Slicer's exporter"


def test_ours_alone_is_offered_elsewhere(host, panel):
    assert panel.ui.dicomKindBox.count == 2


@pytest.mark.slow
def test_slicers_own_exporter_gets_the_structures_and_not_the_background(host, slicers, panel, applied, tmp_path):
    panel.ui.dicomKindBox.currentIndex = 2
    host.answers["QFileDialog", "getExistingDirectory"] = str(tmp_path)
    host.click(panel.ui.dicomExportButton)
    wait(host, panel, lambda: slicers.exported)
    folder, segments = slicers.exported[-1]
    preview = panel.controller.preview
    assert folder == str(tmp_path) and set(segments) == set(preview.classes.names)
    for value, name in enumerate(preview.classes.names, start=1):
        assert ((segments[name][2] > 0) == (preview.labels == value)).all()
    assert "was exported by Slicer's exporter" in panel.controller.message.text()


def _ok():
    import qt

    return qt.QMessageBox.Ok


def _cancel():
    import qt

    return qt.QMessageBox.Cancel
