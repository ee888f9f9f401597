"""SparseSegSlicer's engine: sparse annotation in, dense 3-D segmentation out.

Importing this package, or any of its plain modules (errors, geometry, classes, settings, job, protocol, client, annotation), never
imports torch: a host such as 3D Slicer loads them into its own process.
"""

__version__ = "0.1.0"
