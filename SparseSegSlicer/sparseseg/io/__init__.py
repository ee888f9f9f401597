"""Image files: the one door for all that is not `io`. What is in the list below may be used; which format a file has stays behind it."""

from .channels import onto_grid, read_channel
from .dicomseries import Series, find_series
from .export import KINDS, Dense, check_possible, read_dense, write_dicom
from .files import read_annotation, read_labels, read_volume, write_annotation, write_segmentation, write_volume
from .hintsfile import read_hints
from .image import Image
from .instances import Instance, read_instance
from .nifti import TRANSFORMS
from .output import PLAIN_SUFFIXES, VOLUME_SUFFIXES, WRITE_SUFFIXES, check_apart, check_output, expected_bytes, suffix
from .segnrrd import SparseLabels
from .stacks import Taking

__all__ = [
    "KINDS",
    "PLAIN_SUFFIXES",
    "TRANSFORMS",
    "VOLUME_SUFFIXES",
    "WRITE_SUFFIXES",
    "Dense",
    "Image",
    "Instance",
    "Series",
    "SparseLabels",
    "Taking",
    "check_apart",
    "check_output",
    "check_possible",
    "expected_bytes",
    "find_series",
    "onto_grid",
    "read_annotation",
    "read_channel",
    "read_dense",
    "read_hints",
    "read_instance",
    "read_labels",
    "read_volume",
    "suffix",
    "write_annotation",
    "write_dicom",
    "write_segmentation",
    "write_volume",
]
