"""Files of the field in and out, one module a format."""
