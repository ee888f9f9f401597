"""Several volumes on one grid as the channels of one image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import InputError
from .store import IN_MEMORY, Store, slabs

MOST_CHANNELS = 4
IMAGE_TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32")


def stack(volumes: Sequence[np.ndarray], store: Store = IN_MEMORY) -> np.ndarray:
    """What a job takes as its image: of volumes (K, J, I) a copy (C, K, J, I) in their common type, float32 where an image may not have that, kept
    by `store`; of one volume that itself. Raises InputError for too many, or shapes that differ."""
    if not 1 <= len(volumes) <= MOST_CHANNELS:
        raise InputError(f"{len(volumes)} volumes were given as channels of one image.", f"Give 1 to {MOST_CHANNELS}.")
    if len({volume.shape for volume in volumes}) > 1:
        raise InputError("The channels of an image lie on different grids.", "Resample them to the first one.")
    if len(volumes) == 1:
        return volumes[0]
    common = np.result_type(*volumes)
    kind = common if common.name in IMAGE_TYPES else np.dtype(np.float32)
    parts = (slab.astype(kind) for volume in volumes for slab in slabs(volume))
    return store.keep("The image of several channels", (len(volumes), *volumes[0].shape), kind, parts)
