"""A server on a free port: addresses, connections, the end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from changed_generators import Chain

from guide_fast.errors import UsageError
from guide_fast.serve.server import Server, check_token
from guide_fast.serve.serving import Serving
from guide_fast.serve.torch_session import TorchSession


@pytest.fixture
def session(mobile: Chain) -> TorchSession:
    return TorchSession(mobile.generator)


def test_port_in_use_is_one_sentence(session: TorchSession, served: Callable[..., Any]) -> None:
    client = served(session)
    port = client.server.server_address[1]
    serving = Serving(session)
    with pytest.raises(UsageError, match=f"port {port} on 127.0.0.1 is in use; choose another one with --port"):
        Server(serving, port=port)
    serving.batcher.close()
    assert client.ask("GET", "/healthz")[0] == 200  # the first one is not disturbed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 70000}, "port 70000 is out of range"),
        ({"host": "192.0.2.1"}, "cannot listen on 192.0.2.1"),
        ({"host": "no such host.invalid"}, "cannot listen on no such host.invalid"),
        ({"token": "short"}, "the admin token has 5 characters; take at least 16"),
        ({"token": "zeilen\numbruch im token"}, "printable ASCII"),
    ],
)
def test_what_cannot_be_listened_on_is_refused(session: TorchSession, options: dict[str, Any], message: str) -> None:
    serving = Serving(session)
    with pytest.raises(UsageError, match=message):
        Server(serving, **options)
    serving.close()


def test_it_answers_on_the_local_host_unless_told_otherwise(session: TorchSession, served: Callable[..., Any]) -> None:
    server = served(session).server
    assert server.url.startswith("http://127.0.0.1:")


def test_one_connection_too_many_is_refused_at_once(session: TorchSession, served: Callable[..., Any]) -> None:
    client = served(session, connections=2)
    held = [socket.create_connection(client.server.server_address[:2]) for _ in range(2)]
    time.sleep(0.2)  # both have their thread
    assert client.ask("GET", "/healthz")[0] == 503
    for connection in held:
        connection.close()
    until = time.monotonic() + 5
    while (status := client.ask("GET", "/healthz")[0]) == 503 and time.monotonic() < until:
        time.sleep(0.02)
    assert status == 200


def test_silent_client_is_let_go(session: TorchSession, served: Callable[..., Any]) -> None:
    client = served(session, patience=0.2)
    with socket.create_connection(client.server.server_address[:2], timeout=5) as connection:
        assert connection.recv(1) == b""


def test_stop_answers_what_waits_and_refuses_what_comes(session: TorchSession, served: Callable[..., Any]) -> None:
    gate, begun = threading.Event(), threading.Event()
    render = session._images

    def slow(*arguments: Any) -> Any:
        begun.set()
        gate.wait(10)
        return render(*arguments)

    session._images = slow
    client = served(session)
    kept = socket.create_connection(client.server.server_address[:2])  # a connection from before the end
    answers: list[int] = []
    asking = [
        threading.Thread(target=lambda: answers.append(client.ask("POST", "/render", {"seed": 1})[0])) for _ in "ab"
    ]
    for thread in asking:
        thread.start()
    assert begun.wait(5)
    while client.server.serving.batcher.depth < 1:
        time.sleep(0.005)
    drained: list[bool] = []
    stopping = threading.Thread(target=lambda: drained.append(client.server.stop(timeout=10)))
    stopping.start()
    while not client.server.serving.batcher.closing:
        time.sleep(0.005)
    kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b" 503 " in kept.recv(1000).split(b"\r\n")[0] and not answers
    gate.set()
    for thread in (*asking, stopping):
        thread.join(10)
    assert (answers, drained) == ([200, 200], [True])
    with pytest.raises(OSError, match="refused"):
        client.ask("GET", "/healthz")


def test_stop_without_ever_serving_ends(session: TorchSession) -> None:
    server = Server(Serving(session))
    assert server.stop(timeout=1)


def test_token_is_read_without_its_line_end() -> None:
    assert check_token("0123456789abcdef\n") == "0123456789abcdef" and check_token(None) is None
    with pytest.raises(UsageError, match="the admin token has 0 characters"):
        check_token(" \n")
