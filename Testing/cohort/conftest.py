"""A small model that any phantom can be given, and lists of phantoms."""

import pytest
import torch

from phantoms import two_organs
from sparseseg import io
from sparseseg.network import checkpoint
from sparseseg.network.intensity import Intensity
from sparseseg.network.unet import UNet3d, plan_network


def save_model(path, seed=0, **more):
    """A network that has learned nothing, for phantoms' two segments."""
    torch.manual_seed(seed)
    plan = plan_network(1, [24, 36], 3, 4, 2, False, 1)
    with open(path, "wb") as file:
        checkpoint.Checkpoint(
            plan, UNet3d(plan).state_dict(), (Intensity(40.0, 60.0, False),), two_organs().classes, (1.5, 1.0, 1.0), (0,), 1, **more
        ).save(file)
    return path


@pytest.fixture
def model(tmp_path):
    return save_model(tmp_path / "model.pt")


@pytest.fixture
def phantoms(tmp_path):
    """phantoms(count, damaged=0) -> a list of so many volumes in a folder with spaces and accents, and some more that are no images."""

    def write(count, damaged=0, shape_kji=(12, 20, 18)):
        folder = tmp_path / "žluté obrazy"
        folder.mkdir(exist_ok=True)
        for n in range(count):
            phantom = two_organs(shape_kji, seed=n)
            io.write_volume(folder / f"{n:02d}.nrrd", phantom.image, phantom.geometry)
        for n in range(damaged):
            (folder / f"damaged-{n}.nrrd").write_bytes(b"NRRD0004\nnonsense")
        names = sorted(path.name for path in folder.glob("*.nrrd"))
        (folder / "list.csv").write_text("\n".join(["image", *names]) + "\n", encoding="utf-8")
        return folder / "list.csv"

    return write
