"""The 3-D U-Net that learns this one volume: device, samples, loss, training, prediction. It knows no other voice.

Whoever needs torch comes through here first, so that a missing or broken one is said in a sentence. Raises PackageError.
"""

from ..contract.errors import PackageError

try:
    import torch  # noqa: F401
except (ImportError, OSError) as error:  # OSError: a library of it that does not load
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        raise PackageError(
            "PyTorch, which the engine needs, is not installed.", 'Press "Install PyTorch..." in Slicer; elsewhere: pip install torch.'
        ) from error
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    raise PackageError(f"PyTorch is installed, but does not load ({reason}).", 'Press "Repair..." in Slicer; elsewhere install it anew.') from error
