"""JACK servers and the users at them, ended with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from virtual_jack import JackServer, VirtualUser, require_jack

StartServer = Callable[..., JackServer]
SeatUser = Callable[[np.ndarray], VirtualUser]


@pytest.fixture
def start_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartServer]:
    require_jack(monkeypatch)
    servers: list[JackServer] = []

    def start(**settings: int) -> JackServer:
        servers.append(JackServer(tmp_path, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def seat_user(tmp_path: Path) -> Iterator[SeatUser]:
    users: list[VirtualUser] = []

    def seat(pcm: np.ndarray) -> VirtualUser:
        users.append(VirtualUser(pcm, tmp_path))
        return users[-1]

    yield seat
    for user in users:
        user.close()
