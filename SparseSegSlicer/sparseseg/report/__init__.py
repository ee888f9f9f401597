"""report.html: what a run made and how far to trust it, in one file that opens offline. Only numpy and the standard library.

Pictures are grey PNGs at voxel resolution, each embedded once; strokes, segments and truth are voxel-exact SVG outlines over them, so they
stay sharp at any size. Radiological display: axial has patient right on the left and anterior up, coronal and sagittal superior up. No
scripts, no links, and a content policy that forbids both.
"""

from .data import ReportInput
from .page import write_report

__all__ = ["ReportInput", "write_report"]
