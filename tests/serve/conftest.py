"""Generators with deltas as files, sound ones with those that no session may take."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from changed_generators import FAMILIES, Chain, chain, damaged_deltas
from tiny import tiny_generator

from guide_fast.serve.server import Server
from guide_fast.serve.serving import Serving

TOKEN = "a token of some length"


@pytest.fixture
def mobile(tmp_path: Path) -> Chain:
    return chain(tiny_generator(), tmp_path)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Chain:
    """Every family in turn."""
    return chain(FAMILIES[request.param](), tmp_path)


@pytest.fixture
def damaged(mobile: Chain, tmp_path: Path) -> dict[str, Path]:
    """Deltas that no session on `mobile` may take, by what is wrong with them."""
    return damaged_deltas(mobile, tmp_path)


@dataclass
class Client:
    """A server in a thread, asked over HTTP."""

    server: Server

    def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case), body; `body` is bytes, or an object sent as JSON."""
        connection = http.client.HTTPConnection(*self.server.server_address[:2], timeout=30)
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, sent, headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def error(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, str]:
        """Status, sentence of a refusal."""
        status, _, content = self.ask(method, path, body, **more)
        return status, json.loads(content)["error"]


@pytest.fixture
def served() -> Iterator[Callable[..., Client]]:
    """`served(session)` answers until the test is over."""
    running: list[tuple[Server, threading.Thread]] = []

    def start(session: Any, *, batching: dict[str, Any] | None = None, **options: Any) -> Client:
        server = Server(Serving(session, **(batching or {})), token=options.pop("token", TOKEN), **options)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        running.append((server, thread))
        return Client(server)

    yield start
    for server, thread in running:
        server.stop(timeout=5)
        thread.join()
