"""SparseSegSlicer's engine: sparse annotation in, dense 3-D segmentation out.

Its rooms, lowest first: contract, annotation, {io | prior, network, quality}, session; then the hosts worker, cli, doctor and report. Importing
this package, or anything of contract, annotation or io, never imports torch: a host such as 3D Slicer loads them into its own process.
"""

__version__ = "0.1.0"
