"""Model files: whole and plain numbers, or refused with one sentence."""

import contextlib
import errno
import io
import os
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import ModelError
from sparseseg.network.checkpoint import Checkpoint, export, load
from sparseseg.network.intensity import Intensity
from sparseseg.network.unet import NetworkPlan, UNet3d, plan_network

CPU = torch.device("cpu")
PLAN = NetworkPlan(classes=3, width=4, pools=((1, 2, 2),), kernels=((1, 3, 3), (3, 3, 3)), residual=True)
TRAINING = {"steps": 7, "rng": {"state": "340282366920938463463374607431768211455"}, "momenta": [torch.ones(2)]}


def made(plan=PLAN, seed=0, training=None):
    torch.manual_seed(seed)
    weights = UNet3d(plan).state_dict()
    return Checkpoint(plan, weights, (Intensity(40, 12.5, False),), ClassTable.numbered(2, ["ä", "b"]), (2.5, 0.5, 0.5), (0, 2), 4, training or {})


def content(plan=PLAN):
    """What stands in a good file."""
    buffer = io.BytesIO()
    made(plan).save(buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def saved(path, data):
    torch.save(data, path)
    return path


@pytest.fixture
def model(tmp_path):
    with (tmp_path / "model.pt").open("wb") as file:
        made(training=TRAINING).save(file)
    return tmp_path / "model.pt"


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_full_disk_is_told_of_as_such(number):
    class Full(io.BytesIO):
        left = number

        def write(self, data):
            self.left -= 1
            if not self.left:
                super().write(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    with contextlib.suppress(OSError):  # but nothing else; and what is written with one call knows no fifth
        made().save(Full())


def test_a_model_comes_back_as_it_was_saved(model):
    loaded = load(model)
    expected = made()
    assert (loaded.network, loaded.intensities, loaded.classes) == (expected.network, expected.intensities, expected.classes)
    assert (loaded.spacing_kji_mm, loaded.orientations, loaded.slices) == ((2.5, 0.5, 0.5), (0, 2), 4)
    assert loaded.training["steps"] == 7
    assert loaded.training["rng"] == TRAINING["rng"]
    assert torch.equal(loaded.training["momenta"][0], torch.ones(2))
    assert loaded.weights.keys() == expected.weights.keys()
    assert all(torch.equal(loaded.weights[name], tensor) for name, tensor in expected.weights.items())


def test_the_network_built_from_a_model_says_what_the_saved_one_said(model):
    x = torch.randn(1, PLAN.in_channels, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    original = UNet3d(PLAN).eval().requires_grad_(False)
    original.load_state_dict(made().weights)
    built = load(model).build_network(CPU)
    torch.testing.assert_close(built(x), original(x), atol=1e-5, rtol=1e-5)
    assert not any(p.requires_grad for p in built.parameters())


def test_a_model_to_keep_is_the_same_without_what_resuming_needs(model, tmp_path):
    export(model, tmp_path / "kept.pt")
    kept, before = load(tmp_path / "kept.pt"), load(model)
    assert kept.training == {} and before.training
    assert (kept.network, kept.orientations, kept.slices) == (before.network, before.orientations, before.slices)
    assert all(torch.equal(kept.weights[name], tensor) for name, tensor in before.weights.items())


def test_weights_that_do_not_fit_the_description_are_refused(model):
    loaded = load(model)
    del loaded.weights["head.bias"]
    with pytest.raises(ModelError, match="do not fit its own description"):
        loaded.build_network(CPU)


@pytest.mark.parametrize("field", ["network", "weights", "intensity", "classes", "spacing_kji_mm", "orientations", "slices", "training"])
def test_a_model_with_a_part_missing_is_refused(tmp_path, field):
    data = content()
    del data[field]
    with pytest.raises(ModelError, match=rf"model\.pt is damaged \('{field}'\)\. Train a new model"):
        load(saved(tmp_path / "model.pt", data))


@pytest.mark.parametrize(
    "fields",
    [
        {"network": {**PLAN.to_json(), "pools": 3}},
        {"network": {**PLAN.to_json(), "width": "wide"}},
        {"intensity": {"centre": None, "scale": 1, "relative": False}},
        {"intensity": 5},
        {"classes": {"segments": [{"value": 2}]}},
        {"spacing_kji_mm": [1, 1]},
        {"orientations": []},
        {"orientations": [0, 3]},
        {"orientations": "axial"},
        {"orientations": 1},
        {"slices": "many"},
        {"slices": 0},
    ],
)
def test_a_model_with_damaged_parts_is_refused(tmp_path, fields):
    with pytest.raises(ModelError, match=r"model\.pt is damaged \("):
        load(saved(tmp_path / "model.pt", {**content(), **fields}))


def test_a_model_for_other_channels_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"expects 7 input channels, this engine gives 11\. Choose a model that this engine trained"):
        load(saved(tmp_path / "model.pt", content(NetworkPlan(2, 4, (), ((3, 3, 3),), in_channels=7))))


# ---------------------------------------------------------------- foreign and damaged files


def test_a_missing_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"There is no model file .*gone\.pt\. Check the path"):
        load(tmp_path / "gone.pt")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="damaged or no model"):
        load(tmp_path)


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.7, 0.99, 0.9999])
def test_a_model_cut_anywhere_is_refused(model, share):
    whole = model.read_bytes()
    model.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match=r"model\.pt is damaged or no model"):
        load(model)


@pytest.mark.parametrize("size", [1, 10, 1000, 100_000])
@pytest.mark.parametrize("start", [b"", b"PK\x03\x04", b"\x80\x02", b"\x93NUMPY"])
def test_other_bytes_are_refused(tmp_path, size, start):
    path = tmp_path / "model.pt"
    path.write_bytes(start + np.random.default_rng(size).bytes(size))
    with pytest.raises(ModelError, match=r"model\.pt (is damaged or no model|is no model of this program|holds code)"):
        load(path)


def test_a_zip_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelError, match=r"model\.pt is damaged or no model"):
        load(tmp_path / "model.pt")


@pytest.mark.parametrize("data", [torch.ones(3), {"state_dict": {"a": torch.ones(3)}}, [1, 2], None, {"format": "nnU-Net", "version": 1}, {}])
def test_a_torch_file_of_another_program_is_refused(tmp_path, data):
    with pytest.raises(ModelError, match=r"model\.pt is no model of this program.*--save-model"):
        load(saved(tmp_path / "model.pt", data))


@pytest.mark.parametrize("version", [0, 1, 4, "2", None])
def test_a_model_of_another_version_is_refused(tmp_path, version):
    with pytest.raises(ModelError, match=f"model.pt has model version {version}, this engine reads 2"):
        load(saved(tmp_path / "model.pt", {**content(), "version": version}))


class Trap:
    """Leaves a trace when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(("legacy", "words"), [(False, "holds code, not only numbers, and was not loaded"), (True, "is damaged or no model")])
def test_code_in_a_model_is_refused_and_not_run(tmp_path, legacy, words):
    data = {**content(), "training": Trap(tmp_path / "trace")}
    torch.save(data, tmp_path / "model.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match=words):
        load(tmp_path / "model.pt")
    assert not (tmp_path / "trace").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_with_code_is_refused_and_not_run(tmp_path, protocol):
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Trap(tmp_path / "trace"), protocol))
    with pytest.raises(ModelError, match=r"holds code|is damaged or no model"):
        load(tmp_path / "model.pt")
    assert not (tmp_path / "trace").exists()


def test_the_trap_works():
    """Or the tests above would prove nothing."""
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickle.dumps(Trap(os.path.join("no such folder", "trace"))))  # noqa: PTH118


def test_a_model_knows_its_channels(tmp_path):
    intensities = (Intensity(40, 12.5, False), Intensity(0.5, 0.1, True))
    plan = plan_network(1, (64, 64), 3, 4, 2, channels=2)
    with (tmp_path / "model.pt").open("wb") as file:
        replace(made(plan), intensities=intensities).save(file)
    loaded = load(tmp_path / "model.pt")
    assert loaded.intensities == intensities and loaded.network.channels == 2
    loaded.check_channels(2)
    with pytest.raises(ModelError, match=r"The model was trained on 2 channels, the image has 1 channel\. Give the same volumes"):
        loaded.check_channels(1)
    with pytest.raises(ModelError, match="expects 16 input channels, this engine gives 11"):
        load(saved(tmp_path / "other.pt", content(plan)))


def test_what_a_cohort_says_of_its_model_comes_back(tmp_path):
    cohort = replace(made(), validation={"Segment_1": 0.75}, is_upright=True)
    with (tmp_path / "cohort.pt").open("wb") as file:
        cohort.save(file)
    loaded = load(tmp_path / "cohort.pt")
    assert loaded.validation == {"Segment_1": 0.75} and loaded.is_upright
    assert torch.load(tmp_path / "cohort.pt", weights_only=True)["version"] == 3  # which an engine that turns no volumes refuses


def test_a_model_of_before_cohorts_is_not_upright(tmp_path):
    data = content()
    del data["validation"]
    loaded = load(saved(tmp_path / "m.pt", data))
    assert data["version"] == 2 and loaded.validation == {} and not loaded.is_upright


@pytest.mark.parametrize("validation", [{"other": 0.5}, {"Segment_1": 1.5}, {"Segment_1": float("nan")}, [0.5], {"Segment_1": "0.5"}])
def test_a_damaged_validation_is_refused(tmp_path, validation):
    with pytest.raises(ModelError, match="damaged"):
        load(saved(tmp_path / "m.pt", content() | {"validation": validation}))
