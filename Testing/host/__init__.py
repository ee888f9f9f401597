"""A stand-in for the 3D Slicer application: the real MRML of slicer-core, and `qt`, `ctk`, `slicer` with PythonQt's rules on PySide6.

Nothing heavy is imported here: the engine's tests run in the same process and must not pay for VTK and Qt.
"""
