"""A small model that any phantom can be given."""

import torch

from phantoms import two_organs
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
