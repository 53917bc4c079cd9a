"""What a server answers: images by version, exchanges by token, refusals that change nothing."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_generators import Chain
from hammering import hammer
from PIL import Image

from guide_fast.serve.pictures import pixels
from guide_fast.serve.seeds import z_of
from guide_fast.serve.torch_session import TorchSession

TOKEN = "a token of some length"


@pytest.fixture
def session(mobile: Chain) -> TorchSession:
    return TorchSession(mobile.generator)


@pytest.fixture
def client(session: TorchSession, served: Callable[..., Any]) -> Any:
    return served(session)


def test_png_is_the_sessions_image(client: Any, session: TorchSession, mobile: Chain) -> None:
    status, headers, body = client.ask("POST", "/render", {"seed": 7, "truncation": 0.8})
    assert (status, headers["content-type"]) == (200, "image/png")
    wanted = pixels(session.render(z=z_of(7, 16)[None], truncation=0.8).images[0])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(body))), wanted)
    assert headers["x-weights-sha256"] == mobile.hashes[0] and headers["x-deltas"] == ""


def test_raw_pixels_of_z_and_w_are_the_same_person(client: Any, session: TorchSession, mobile: Chain) -> None:
    import torch

    z = z_of(7, 16)
    with torch.inference_mode():
        w = mobile.generator.mapping(torch.from_numpy(z[None]))[0].numpy()
    answers = [
        client.ask("POST", "/render", {"format": "raw", **latent})
        for latent in ({"seed": 7}, {"z": z.tolist()}, {"w": w.tolist()}, {"w": w[0].tolist()})
    ]
    assert [headers["x-shape"] for _, headers, _ in answers] == ["32,32,3"] * 4
    first = np.frombuffer(answers[0][2], np.uint8).reshape(32, 32, 3)
    assert np.array_equal(first, pixels(session.render(z=z[None]).images[0]))
    assert len({body for _, _, body in answers}) == 1


def test_apply_and_rollback_change_what_is_rendered(client: Any, mobile: Chain) -> None:
    before = client.ask("POST", "/render", {"seed": 1})[2]
    for number, delta in enumerate(mobile.deltas):
        status, _, body = client.ask("POST", "/apply", delta.read_bytes(), token=TOKEN)
        swap = json.loads(body)
        assert status == 200 and swap["exchange_seconds"] < 1
        assert swap["before"]["weights_sha256"] == mobile.hashes[number]
        assert swap["after"]["weights_sha256"] == mobile.hashes[number + 1]
    status, headers, after = client.ask("POST", "/render", {"seed": 1})
    assert headers["x-weights-sha256"] == mobile.hashes[2] and headers["x-deltas"].count(",") == 1 and after != before
    assert json.loads(client.ask("GET", "/version")[2])["weights_sha256"] == mobile.hashes[2]
    for _ in mobile.deltas:
        assert client.ask("POST", "/rollback", token=TOKEN)[0] == 200
    assert client.ask("POST", "/render", {"seed": 1})[2] == before
    assert client.error("POST", "/rollback", token=TOKEN)[0] == 400


@pytest.mark.parametrize(
    ("what", "status", "message"),
    [
        ("flipped bit", 422, "does not lead to the promised weights"),
        ("unknown weight", 422, "which tiny does not have in that form"),
        ("missing weight", 422, "does not lead to the promised weights"),
        ("truncated file", 422, "is damaged"),
        ("no delta", 422, "is damaged or no safetensors file"),
        ("other base", 400, "can only be applied to weights with sha256"),
    ],
)
def test_bad_delta_is_refused_and_the_old_weights_render_on(
    what: str, status: int, message: str, client: Any, mobile: Chain, damaged: dict[str, Path]
) -> None:
    before = client.ask("POST", "/render", {"seed": 1})[2]
    refused = client.error("POST", "/apply", damaged[what].read_bytes(), token=TOKEN)
    assert refused[0] == status and message in refused[1]
    _, headers, after = client.ask("POST", "/render", {"seed": 1})
    assert after == before and headers["x-weights-sha256"] == mobile.hashes[0]


@pytest.mark.parametrize("path", ["/apply", "/rollback"])
def test_exchanging_weights_needs_the_token(path: str, client: Any, mobile: Chain, served: Any) -> None:
    delta = mobile.deltas[0].read_bytes()
    for token in (None, "", "wrong", TOKEN + "x", "токен"):
        headers = {} if token is None else {"Authorization": f"Bearer {token}".encode().decode("latin-1")}
        status, said = client.error("POST", path, delta, **headers)
        assert status == 401 and "token is missing or wrong" in said
    basic = client.error("POST", path, delta, Authorization=f"Basic {TOKEN}")
    assert basic[0] == 401
    assert json.loads(client.ask("GET", "/version")[2])["weights_sha256"] == mobile.hashes[0]


def test_without_a_token_nobody_exchanges_weights(session: TorchSession, served: Any, mobile: Chain) -> None:
    client = served(session, token=None)
    status, said = client.error("POST", "/apply", mobile.deltas[0].read_bytes(), token=TOKEN)
    assert status == 403 and "GUIDE_FAST_ADMIN_TOKEN" in said
    assert client.error("POST", "/rollback", token="")[0] == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/", None, 404, "/ is not known; there are /healthz"),
        ("GET", "/render", None, 405, "/render answers POST alone"),
        ("POST", "/healthz", b"", 405, "/healthz answers GET alone"),
        ("PUT", "/render", b"", 501, "Unsupported method"),
        ("POST", "/render", b"{", 400, "the body is no JSON"),
        ("POST", "/render", {"z": [1.0]}, 400, "z has shape [1, 1]; give [N, 16]"),
        ("POST", "/render", {"z": [float("nan")] * 16}, 400, "z holds nan"),
        ("POST", "/render", {"seed": 1, "truncation": 9}, 400, "truncation is"),
        ("POST", "/render", {"seed": 1, "c": [1]}, 400, "tiny takes no conditioning"),
        ("POST", "/render", b" " * (9 << 20), 413, "takes at most"),
        ("GET", "/version", b"x", 413, "the body has 1 bytes"),
    ],
)
def test_wrong_requests_are_one_sentence(
    method: str, path: str, body: Any, status: int, message: str, client: Any
) -> None:
    found = client.error(method, path, body)
    assert found[0] == status and message in found[1]
    assert client.ask("GET", "/healthz")[0] == 200


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"POST /render HTTP/1.1\r\nHost: a\r\n\r\n", 411),
        (b"POST /render HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /render HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST /render HTTP/1.1\r\nHost: a\r\nContent-Length: \xb2\r\n\r\n", 400),
        (b"good day\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_ends(said: bytes, status: int, client: Any) -> None:
    with socket.create_connection(client.server.server_address[:2], timeout=5) as connection:
        connection.sendall(said)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    assert f" {status} ".encode() in answer.split(b"\r\n")[0]
    assert client.ask("GET", "/healthz")[0] == 200


def test_upload_that_is_not_allowed_is_refused_before_it_is_sent(client: Any) -> None:
    head = b"POST /apply HTTP/1.1\r\nHost: a\r\nContent-Length: 500000000\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(client.server.server_address[:2], timeout=5) as connection:
        connection.sendall(head)
        assert b" 401 " in connection.recv(4096).split(b"\r\n")[0]


def test_several_requests_share_a_connection(client: Any) -> None:
    import http.client

    connection = http.client.HTTPConnection(*client.server.server_address[:2], timeout=10)
    for status, path, body in ((200, "/render", '{"seed": 1}'), (400, "/render", "{"), (200, "/render", '{"seed": 2}')):
        connection.request("POST", path, body)
        answer = connection.getresponse()
        assert answer.status == status and answer.read()
    connection.close()


def test_full_queue_is_503_with_when_to_come_back(session: TorchSession, served: Any) -> None:
    gate, render = threading.Event(), session._images
    session._images = lambda *arguments: gate.wait(10) and render(*arguments)
    client = served(session, batching={"queue": 1})
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(client.ask("POST", "/render", {"seed": 1})[0])) for _ in "ab"
    ]
    batcher = client.server.serving.batcher
    for thread, ready in zip(threads, (lambda: batcher.busy == 1, lambda: batcher.depth == 1), strict=True):
        thread.start()
        while not ready():
            time.sleep(0.005)
    status, headers, body = client.ask("POST", "/render", {"seed": 1})
    assert (status, headers["retry-after"]) == (503, "1") and b"requests wait already" in body
    gate.set()
    for thread in threads:
        thread.join()
    assert answers == [200, 200]


def test_request_that_takes_too_long_is_503(session: TorchSession, served: Any) -> None:
    gate, render = threading.Event(), session._images
    session._images = lambda *arguments: gate.wait(10) and render(*arguments)
    client = served(session)
    status, said = client.error("POST", "/render", {"seed": 1, "timeout": 0.05})
    assert status == 503 and "not rendered within 0.05 s" in said
    gate.set()


def test_client_that_leaves_frees_its_place(session: TorchSession, served: Any) -> None:
    gate, render = threading.Event(), session._images
    session._images = lambda *arguments: gate.wait(10) and render(*arguments)
    client = served(session)
    batcher = client.server.serving.batcher
    body = b'{"seed": 1}'
    for number in range(2):  # the first one is being rendered, the second one waits
        connection = socket.create_connection(client.server.server_address[:2])
        head = f"POST /render HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connection.sendall(head + body)
        until = time.monotonic() + 5
        while batcher.busy + batcher.depth <= number and time.monotonic() < until:
            time.sleep(0.005)
    connection.close()
    time.sleep(0.5)
    gate.set()
    assert client.ask("POST", "/render", {"seed": 2})[0] == 200
    assert batcher.requests.value(outcome="cancelled") == 1


def test_fault_of_the_session_is_500_and_the_next_request_is_served(session: TorchSession, served: Any) -> None:
    render = session._images

    def fails_once(*arguments: Any) -> Any:
        session._images = render
        raise MemoryError("secret path")

    session._images = fails_once
    client = served(session)
    status, said = client.error("POST", "/render", {"seed": 1})
    assert status == 500 and "MemoryError" in said and "secret" not in said
    assert client.ask("POST", "/render", {"seed": 1})[0] == 200


def test_metrics_are_prometheus_text(client: Any) -> None:
    client.ask("POST", "/render", {"seed": 1})
    status, headers, body = client.ask("GET", "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    text = body.decode()
    assert 'guide_fast_requests_total{outcome="served"} 1' in text and "guide_fast_request_seconds_count 1" in text


def test_every_answer_is_of_the_version_that_it_names(client: Any, session: TorchSession, mobile: Chain) -> None:
    seeds = list(range(4))
    images: dict[str, np.ndarray] = {}
    for number in range(3):
        if number:
            session.apply(mobile.deltas[number - 1])
        made = session.render(z=np.stack([z_of(seed, 16) for seed in seeds]))
        images[made.version.weights_sha256] = np.stack([pixels(image) for image in made.images])
    for _ in mobile.deltas:
        session.rollback()

    class Admin:
        def apply(self, delta: Path) -> int:
            return self.asked("/apply", delta.read_bytes())

        def rollback(self) -> int:
            return self.asked("/rollback", None)

        def asked(self, path: str, body: bytes | None) -> int:
            status, _, said = client.ask("POST", path, body, token=TOKEN)
            assert status == 200, said
            return status

    def render(index: np.ndarray) -> tuple[np.ndarray, str]:
        status, headers, body = client.ask("POST", "/render", {"seed": int(index[0]), "format": "raw"})
        assert status == 200, body
        return np.frombuffer(body, np.uint8).reshape(32, 32, 3), headers["x-weights-sha256"]

    found = hammer(Admin(), render, mobile.deltas, images, np.array(seeds), seconds=1.0)
    assert found.wrong == [] and len(found.seen) == 3, found
