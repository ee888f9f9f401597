"""A small model that any phantom can be given, and lists of phantoms."""

import pytest
from untrained import save_model

from phantoms import two_organs
from sparseseg import io


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
