"""The name under which Testing/conftest.py makes the host of the panel tests."""

from host.slicer_host import Host as PanelHost

__all__ = ["PanelHost"]
