from collections.abc import Iterator

import pytest
from fake import FakeClock, FakeCoordinator

import palisade


@pytest.fixture
def coordinator() -> Iterator[FakeCoordinator]:
    made = FakeCoordinator()
    yield made
    made.stop()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def client(coordinator: FakeCoordinator, clock: FakeClock) -> Iterator[palisade.Client]:
    with palisade.Client(coordinator.addr, clock=clock) as made:
        yield made
