"""Real workers over real pipes."""

import pytest

from sparseseg.contract.client import WorkerClient
from talking import Talk


@pytest.fixture
def start_talk():
    talks = []

    def start(**options):
        talks.append(Talk(WorkerClient(**options)))
        return talks[-1]

    yield start
    for talk in talks:
        talk.client.kill()


@pytest.fixture
def talk(start_talk):
    return start_talk()
