"""The `host` of panel tests: a new scene, no windows, no recorded errors; Qt's application lives as long as the process."""

from pathlib import Path

import pytest


@pytest.fixture
def host(pytestconfig):
    """The panel host, active during the test; the test fails if a slot or an observer raised and the test did not clear host.errors."""
    shared = pytestconfig.pluginmanager.get_plugin(str(Path(__file__).parents[1] / "conftest.py"))
    host = shared.make_host("panel")
    host.reset()
    host.activate()
    try:
        yield host
        host.spin()
        raised = list(host.errors)
    finally:
        host.reset()
        host.deactivate()
    if raised:
        pytest.fail("exceptions in slots or observers:\n" + "\n".join(raised))
