"""The scene in, the scene out: strokes, results, previews, views, DICOM files. No qt."""
