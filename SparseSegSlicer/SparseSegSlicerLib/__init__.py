"""Everything of the module that needs slicer, vtk or qt. Methods are camelCase, as in Slicer; the engine beside it (`sparseseg`) follows PEP 8."""
