import os
from collections.abc import Iterator

# Read when gRPC is first imported: it would halt its threads, a server's among them, where a test forks.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

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
