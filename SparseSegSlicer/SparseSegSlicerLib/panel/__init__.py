"""The panel: clicks become Controller calls, states become enabled and visible."""
