"""Real servers, which tests/scenarios/python_package.rs starts: `PALISADE_TEST_ADDR` and `PALISADE_TEST_DSN`."""

import os
import uuid
from collections.abc import Iterator

import psycopg
import pytest

import palisade

TTL = 3.0


@pytest.fixture
def addr() -> str:
    return os.environ["PALISADE_TEST_ADDR"]


@pytest.fixture
def dsn() -> str:
    return os.environ["PALISADE_TEST_DSN"]


@pytest.fixture
def client(addr: str) -> Iterator[palisade.Client]:
    with palisade.Client(addr) as made:
        yield made


@pytest.fixture
def resource() -> str:
    """A resource of this test alone."""
    return f"test/{uuid.uuid4().hex}"


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn) as made:
        yield made


@pytest.fixture
def table(dsn: str, resource: str) -> Iterator[str]:
    """A table of this test alone, protected by its resource."""
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"CREATE TABLE {name} (id bigint PRIMARY KEY, state text)")
        admin.execute("SELECT palisade.protect(%s, %s)", (name, resource))
        yield name
