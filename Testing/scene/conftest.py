"""What tests of whole sessions share."""

import pytest


@pytest.fixture
def session(scene_host, tmp_path):
    """Volume, segmentation and Controller, with an engine that says what a test wants."""
    from scripted_engine import Session  # needs a scene

    session = Session(scene_host, tmp_path)
    yield session
    session.close()
