"""Models from anywhere: whatever a file asks for, it is one sentence, no code, and no more memory than the file is long."""

import io
import pickle
import tracemalloc
import zipfile
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch

from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import ModelError
from sparseseg.contract.tensorfile import TensorFile, UnsafeFileError
from sparseseg.network import checkpoint, start
from sparseseg.network.checkpoint import Checkpoint, load
from sparseseg.network.intensity import Intensity
from sparseseg.network.unet import NetworkPlan, UNet3d, plan_network, shapes_of

PLAN = plan_network(2, (32, 32), 3, 4, 2, residual=True)


def made(**changes):
    torch.manual_seed(0)
    model = Checkpoint(PLAN, UNet3d(PLAN).state_dict(), (Intensity(40.0, 12.5, False),), ClassTable.numbered(2), (2.5, 0.5, 0.5), (0, 2), 4)
    return replace(model, **changes)


def write(path, model):
    with path.open("wb") as file:
        model.save(file)
    return path


def description(**changes):
    """What stands in a good file, with parts replaced."""
    buffer = io.BytesIO()
    made().save(buffer)
    buffer.seek(0)
    return {**torch.load(buffer, weights_only=True), **changes}


def saved(path, data):
    torch.save(data, path)
    return path


def refused(path, words=r"\w"):
    """By one sentence, and with memory of the file's own order."""
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=words) as caught:
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 20 * path.stat().st_size + 50e6
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


# ---------------------------------------------------------------- what the description says


def weights_with(value, name="head.bias", dtype=torch.float32):
    weights = {key: tensor.clone().to(dtype) for key, tensor in made().weights.items()}
    weights[name].view(-1)[0] = value
    return weights


def without(weights, name):
    return {key: tensor for key, tensor in weights.items() if key != name}


def plan(**changes):
    return {**PLAN.to_json(), **changes}


LEVELS = 20_000
NAN, INF = float("nan"), float("inf")
NONSENSE = {
    "a weight of nan": {"weights": weights_with(NAN)},
    "a weight of infinity": {"weights": weights_with(-INF, "encoder.0.body.0.0.weight")},
    "a weight beyond float32": {"weights": weights_with(1e300, dtype=torch.float64)},
    "whole numbers as weights": {"weights": weights_with(1, dtype=torch.int64)},
    "a weight missing": {"weights": without(made().weights, "head.bias")},
    "a weight too many": {"weights": {**made().weights, "tail.bias": torch.zeros(1)}},
    "a weight of another shape": {"weights": {**made().weights, "head.bias": torch.zeros(4)}},
    "a weight that is none": {"weights": {**made().weights, "head.bias": [0.0, 0.0, 0.0]}},
    "weights in a list": {"weights": list(made().weights.values())},
    "a thousand levels": {"network": plan(kernels=[[3, 3, 3]] * LEVELS, pools=[[1, 2, 2]] * (LEVELS - 1))},
    "no level": {"network": plan(kernels=[], pools=[])},
    "levels without pools": {"network": plan(pools=[])},
    "a width of a milliard": {"network": plan(width=10**9)},
    "a width of 0": {"network": plan(width=0)},
    "a broken width": {"network": plan(width=4.5)},
    "a width that is true": {"network": plan(width=True)},
    "kernels of a hundred": {"network": plan(kernels=[[101, 3, 3]] * 3)},
    "even kernels": {"network": plan(kernels=[[2, 3, 3]] * 3)},
    "pools of a thousand": {"network": plan(pools=[[1000, 1000, 1000]] * 2)},
    "pools of 0": {"network": plan(pools=[[0, 1, 1]] * 2)},
    "flat kernels of two numbers": {"network": plan(kernels=[[3, 3]] * 3)},
    "another width": {"network": plan(width=8)},
    "another residual": {"network": plan(residual=False)},
    "residual by a number": {"network": plan(residual=2)},
    "2 ** 70 classes": {"network": plan(classes=2**70)},
    "a head for more segments than there are": {"classes": ClassTable.numbered(5).to_json()},
    "no segments": {"classes": {"segments": []}},
    "segments without names": {"classes": {"segments": [{"value": 1, "id": 3}]}},
    "scale nan": {"intensity": {"centre": 0.0, "scale": NAN, "relative": False}},
    "scale 0": {"intensity": {"centre": 0.0, "scale": 0.0, "relative": False}},
    "scale negative": {"intensity": {"centre": 0.0, "scale": -1.0, "relative": False}},
    "centre infinite": {"intensity": {"centre": INF, "scale": 1.0, "relative": False}},
    "relative a text": {"intensity": {"centre": 0.0, "scale": 1.0, "relative": "yes"}},
    "scales of a hundred channels": {"intensity": [{"centre": 0.0, "scale": 1.0, "relative": False}] * 100},
    "scales of none": {"intensity": []},
    "spacing 0": {"spacing_kji_mm": [0.0, 1.0, 1.0]},
    "spacing negative": {"spacing_kji_mm": [1.0, -1.0, 1.0]},
    "spacing nan": {"spacing_kji_mm": [1.0, 1.0, NAN]},
    "spacing infinite": {"spacing_kji_mm": [1.0, 1.0, INF]},
    "spacing of four": {"spacing_kji_mm": [1.0] * 4},
    "spacing a text": {"spacing_kji_mm": "123"},
    "no orientation": {"orientations": []},
    "an orientation a thousand times": {"orientations": [0] * 1000},
    "an orientation twice": {"orientations": [0, 0]},
    "an orientation -1": {"orientations": [-1]},
    "an orientation 0.5": {"orientations": [0.5]},
    "slices of a milliard": {"slices": 10**9},
    "slices -1": {"slices": -1},
    "slices a text": {"slices": "2"},
    "training a list": {"training": [1]},
    "nested without end": {"training": {"a": None}},
    "version true": {"version": True},
    "version a long text": {"version": "x" * 10_000},
    "format a list": {"format": ["sparseseg-model"]},
}
_deep = NONSENSE["nested without end"]["training"]
for _ in range(200):
    _deep["a"] = {"a": None}
    _deep = _deep["a"]


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_one_sentence(tmp_path, name):
    refused(saved(tmp_path / "model.pt", description(**NONSENSE[name])))


def test_what_the_table_changes_is_good_otherwise(tmp_path):
    load(saved(tmp_path / "model.pt", description()))
    load(saved(tmp_path / "more.pt", description(unknown="a later engine's")))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize("depth", range(5))
def test_the_shapes_that_are_asked_of_a_file_are_the_networks(residual, slices, depth):
    each = plan_network(slices, (64, 64), 4, 4, depth, residual, channels=2)
    own = UNet3d(each).state_dict()
    assert shapes_of(each) == {name: tuple(tensor.shape) for name, tensor in own.items()}
    assert list(shapes_of(each)) == list(own)
    assert NetworkPlan.from_json(each.to_json()) == each


def test_layouts_of_memory_come_back_as_values(tmp_path):
    """Weights are saved in the layout of their device."""
    weights = {name: tensor.to(memory_format=torch.channels_last_3d) if tensor.dim() == 5 else tensor for name, tensor in made().weights.items()}
    loaded = load(write(tmp_path / "model.pt", made(weights=weights, training={"half": torch.arange(6.0)[::2], "none": torch.zeros(0, 3)})))
    assert all(torch.equal(loaded.weights[name], tensor) for name, tensor in weights.items())
    assert loaded.training["half"].tolist() == [0, 2, 4] and loaded.training["none"].shape == (0, 3)


# ---------------------------------------------------------------- what the file says of itself


def archive(path, described, entries=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("model/data.pkl", described)
        for name, data in entries:
            file.writestr(f"model/data/{name}", data)
    return path


class Entry:
    def __init__(self, name, length, kind=torch.FloatStorage):
        self.described = ("storage", kind, name, "cpu", length)


class Tensor:
    def __init__(self, entry, offset, shape, stride):
        self.arguments = (entry, offset, shape, stride, False, OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


def pickled(value):
    class Pickler(pickle.Pickler):
        def persistent_id(self, found):
            return found.described if isinstance(found, Entry) else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(value)
    return buffer.getvalue()


ARRAYS = {
    "longer than its entry": Tensor(Entry("0", 10**9), 0, (10**9,), (1,)),
    "beyond its entry": Tensor(Entry("0", 4), 3, (2,), (1,)),
    "before its entry": Tensor(Entry("0", 4), -1, (2,), (1,)),
    "one number many times": Tensor(Entry("0", 4), 0, (10**12,), (0,)),
    "a stride backwards": Tensor(Entry("0", 4), 3, (4,), (-1,)),
    "more axes than strides": Tensor(Entry("0", 4), 0, (4, 1), (1,)),
    "a hundred axes": Tensor(Entry("0", 4), 0, (1,) * 100, (1,) * 100),
    "a shape of texts": Tensor(Entry("0", 4), 0, ("4",), (1,)),
    "no entry": Tensor(Entry("7", 4), 0, (4,), (1,)),
    "an entry outside": Tensor(Entry("../data.pkl", 4), 0, (4,), (1,)),
    "a length below 0": Tensor(Entry("0", -4), 0, (4,), (1,)),
    "a length that is huge": Tensor(Entry("0", 2**200), 0, (2**200,), (1,)),
    "no storage": Tensor([1.0, 2.0], 0, (2,), (1,)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_is_no_more_than_its_entry(tmp_path, name):
    described = pickled({**description(training={}), "weights": {}, "training": ARRAYS[name]})
    path = archive(tmp_path / "model.pt", described, [("0", np.ones(4, np.float32).tobytes())])
    with pytest.raises(ValueError), TensorFile(path) as file:
        file.read(file.content["training"])
    refused(path)


def test_the_arrays_of_the_table_would_be_read_where_they_are_right(tmp_path):
    path = archive(tmp_path / "t.pt", pickled([Tensor(Entry("0", 4), 1, (3,), (1,))]), [("0", np.arange(4, dtype=np.float32).tobytes())])
    with TensorFile(path) as file:
        np.testing.assert_array_equal(file.read(file.content)[0], [1, 2, 3])


def test_small_entries_do_not_stand_for_much(tmp_path):
    """The same megabyte for ten thousand tensors."""
    tensors = [Tensor(Entry("0", 2**18), 0, (2**18,), (1,)) for _ in range(10_000)]
    path = archive(tmp_path / "t.pt", pickled(tensors), [("0", bytes(2**20))])
    with pytest.raises(ValueError, match="more than it is long"), TensorFile(path) as file:
        file.read(file.content)


def test_lists_that_hold_each_other_end(tmp_path):
    laughs = ["ha"]
    for _ in range(60):
        laughs = [laughs] * 10
    endless = []
    endless.append(endless)
    for value in (laughs, endless):
        with pytest.raises(ValueError), TensorFile(archive(tmp_path / "t.pt", pickled(value))) as file:
            file.read(file.content)
        refused(saved(tmp_path / "model.pt", description(orientations=value)))
        refused(saved(tmp_path / "model.pt", description(training={"a": value})))


@pytest.mark.parametrize("what", ["all of it", "an array"])
def test_a_packed_file_is_refused_before_it_is_unpacked(tmp_path, what):
    good = write(tmp_path / "good.pt", made(training={"zeros": torch.zeros(10_000_000)}))
    with zipfile.ZipFile(good) as before, zipfile.ZipFile(tmp_path / "model.pt", "w") as after:
        for entry in before.infolist():
            pack = what == "all of it" or entry.file_size > 2**20
            after.writestr(entry.filename, before.read(entry), zipfile.ZIP_DEFLATED if pack else zipfile.ZIP_STORED)
    assert (tmp_path / "model.pt").stat().st_size < 2**20
    refused(tmp_path / "model.pt", "packed, or too large")


@pytest.mark.parametrize(
    "described",
    [
        b"\x80\x02c__builtin__\nbytearray\nJ\x00\xca\x9a;\x85R.",  # of 10 ** 9 bytes
        b"\x80\x02cbuiltins\neval\nX\x03\x00\x00\x001+1\x85R.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        b"\x80\x02ctorch._utils\n_rebuild_meta_tensor_no_storage\n.",
        b"\x80\x02ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02}r\xff\xff\xff\x7f.",  # room for two milliard names
        b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.",  # a bytearray of a terabyte
        b"\x80\x02}(X\xff\xff\xff\x7fabc.",
        b"\x80\x02ccollections\nOrderedDict\n)R}X\x01\x00\x00\x00aK\x01sb.",  # sets an attribute
        b"\x80\x02" + b"]" * 100_000 + b".",
        b"\x80\x02" + b"(" * 100_000 + b"N" + b"t" * 100_000 + b".",
        b"",
        b".",
        b"\x80\x02.",
    ],
)
def test_a_description_that_asks_for_more_than_values_is_refused(tmp_path, described):
    path = archive(tmp_path / "model.pt", described)
    refused(path)
    with pytest.raises(ModelError):
        load(path)


def test_code_is_told_from_damage(tmp_path):
    with pytest.raises(UnsafeFileError), TensorFile(archive(tmp_path / "t.pt", b"\x80\x02cposix\nsystem\n.")):
        pass
    with pytest.raises(ValueError, match="damaged"), TensorFile(archive(tmp_path / "t.pt", b"\x80\x02garbage")):
        pass


def test_any_bit_that_flips_is_noticed_or_changes_nothing(tmp_path):
    whole = write(tmp_path / "good.pt", made(training={"steps": 3, "momenta": [torch.ones(7)]})).read_bytes()
    good = load(tmp_path / "good.pt")
    rng = np.random.default_rng(0)
    path, noticed = tmp_path / "model.pt", 0
    for at in rng.integers(0, len(whole), 400):
        data = bytearray(whole)
        data[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            found = load(path)
        except ModelError:
            noticed += 1
            continue
        assert found.network == good.network and found.training["steps"] == 3
        assert all(torch.equal(found.weights[name], tensor) for name, tensor in good.weights.items())
    assert noticed > 100


def test_a_file_cut_at_any_byte_is_refused(tmp_path):
    whole = write(tmp_path / "good.pt", made()).read_bytes()
    for at in np.random.default_rng(1).integers(0, len(whole), 200):
        (tmp_path / "model.pt").write_bytes(whole[:at])
        with pytest.raises(ModelError, match="damaged or no model"):
            load(tmp_path / "model.pt")


def test_a_pipe_or_a_device_is_refused_at_once(tmp_path):
    import os

    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes")
    os.mkfifo(tmp_path / "model.pt")
    refused(tmp_path / "model.pt", "no file")
    (tmp_path / "zero.pt").symlink_to("/dev/zero")
    refused(tmp_path / "zero.pt", "no file")
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    with pytest.raises(ModelError):
        load(tmp_path / "loop.pt")
    with pytest.raises(ModelError):
        load(tmp_path / ("n" * 300))


# ---------------------------------------------------------------- what comes with the engine


@pytest.mark.parametrize("damage", ["cut", "nan", "other", "empty", "gone"])
def test_a_start_that_was_tampered_with_is_one_sentence(tmp_path, monkeypatch, damage):
    data = torch.load(start.FILE, weights_only=True)
    path = tmp_path / "start.pt"
    if damage == "nan":
        next(iter(data["weights"].values())).fill_(NAN)
    elif damage == "other":
        data["weights"].popitem()
    saved(path, data)
    if damage in ("cut", "empty"):
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else -1000])
    elif damage == "gone":
        path.unlink()
    monkeypatch.setattr(start, "FILE", path)
    with pytest.raises(ModelError, match=r"start\.pt, which networks begin with, cannot be read .* Install the engine again"):
        start.shipped.__wrapped__()


def test_saving_takes_what_torch_calls_a_state(tmp_path):
    """With its notes on versions, which would be more than plain values."""
    assert isinstance(made().weights, OrderedDict)
    assert checkpoint.load(write(tmp_path / "model.pt", made())).weights.keys() == made().weights.keys()
