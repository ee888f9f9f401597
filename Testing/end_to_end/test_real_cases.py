"""Real CT and MR: the loss, the weight map and the whole chain must earn their Dice, with a fixed number of steps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cases import SHARED, load_case, score
from sparseseg.contract.box import whole
from sparseseg.contract.job import Job, JobRecord
from sparseseg.contract.settings import Settings
from sparseseg.io import files
from sparseseg.network import device
from sparseseg.session.devices import DeviceChoice
from sparseseg.session.session import Session

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs the real cases in {SHARED.name} beside the repository")]
QUICK = Settings(steps=80, patch_voxels=96**2, width=16, depth=3, time_budget_s=600, estimate=False)


class Quiet:
    """A host that listens to nothing."""

    finishing = update_waits = False

    def tick(self, *_, **__): ...
    def preview(self, *_): ...
    def check(self, *_): ...
    def warning(self, *_): ...
    def take_update(self): ...


def dice_of(case_name, protocol, folder, settings):
    """Mean Dice on unlabelled voxels: of the result, of the prior alone, of the network alone."""
    case = load_case(SHARED / case_name)
    annotation = files.read_volume(SHARED / case_name / "annotations" / f"{protocol}.nii.gz").array.astype(np.uint8)
    Job.create(folder, case.image, annotation, JobRecord(case.geometry, case.classes, settings)).close()
    compute = replace(device.choose("cpu"), dtype=torch.float32)  # the precision that every CPU has
    session = Session.open(folder, DeviceChoice(chosen=compute), Quiet())
    try:
        outcome = session.train()
        result, prior = np.load(outcome.dense), np.load(folder / "prior.npy")
        network = session.network.belief().at(whole(case.image.shape)).argmax(0)
        return [float(np.mean(score(labels, case.truth, annotation))) for labels in (result, prior, network)]
    finally:
        session.close()


@pytest.mark.parametrize(
    ("case", "protocol", "floor", "network_floor"), [("ct-abdomen", "slices-3", 0.90, 0.5), ("mr-macaque-brain", "slices-5", 0.80, 0.3)]
)
def test_dice_stays_above_a_floor_that_a_broken_loss_would_miss(case, protocol, floor, network_floor, tmp_path):
    result, prior, network = dice_of(case, protocol, tmp_path / "job", QUICK)
    assert result >= floor
    assert result >= prior - 0.03  # after so few steps the network still costs a little
    assert network >= network_floor


def test_the_weight_map_matters(tmp_path):
    """The same run with every weight one (unlabelled voxels count as background) must be far worse: strokes alone, no prior's help. On complete
    slices nothing is unlabelled."""
    strokes_alone = replace(QUICK, pseudo_label_weight=0.0)
    right = dice_of("ct-abdomen", "strokes-3", tmp_path / "right", strokes_alone)[2]
    wrong = dice_of("ct-abdomen", "strokes-3", tmp_path / "wrong", replace(strokes_alone, ignore_weights=True))[2]
    assert right > 0.25
    assert wrong < 0.1
