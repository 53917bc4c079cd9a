"""`guide-fast serve` as a process: it says where it answers, exchanges weights for whoever may, drains on SIGTERM."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from changed_generators import Chain, chain
from tiny import tiny_generator

import guide_fast
from guide_fast.serve.server import Server

TOKEN = "a token of some length"
PROGRAM = "import sys; from guide_fast.cli import main; sys.exit(main())"


@pytest.fixture
def mobile(tmp_path: Path) -> Chain:
    made = chain(tiny_generator(), tmp_path)
    guide_fast.save_generator(made.generator, tmp_path / "generator.safetensors")
    return made


@pytest.fixture
def file(mobile: Chain, tmp_path: Path) -> Path:
    return tmp_path / "generator.safetensors"


class Process:
    """A server of its own."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "serve", *map(str, arguments), "--port", "0", "--device", "cpu", "--json"],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # a shell starts background jobs with SIGINT ignored, which a child inherits
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        assert line, self.popen.communicate()[1]
        self.said = json.loads(line)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        address = urlsplit(self.said["url"])
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.fixture
def started() -> Iterator[Any]:
    running: list[Process] = []

    def start(*arguments: object, **environment: str) -> Process:
        running.append(Process(*arguments, **environment))
        return running[-1]

    yield start
    for process in running:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_once_what_waits_is_answered(
    number: signal.Signals, started: Any, file: Path, mobile: Chain
) -> None:
    process = started(file, GUIDE_FAST_ADMIN_TOKEN=TOKEN)
    assert process.said["url"].startswith("http://127.0.0.1:") and process.said["admin"] is True
    status, said = process.ask("POST", "/apply", mobile.deltas[0].read_bytes(), Authorization=f"Bearer {TOKEN}")
    assert status == 200 and json.loads(said)["after"]["weights_sha256"] == mobile.hashes[1]
    answers: list[int] = []
    asking = [
        threading.Thread(target=lambda: answers.append(process.ask("POST", "/render", b'{"seed": 1}')[0]))
        for _ in range(6)
    ]
    for thread in asking:
        thread.start()
    time.sleep(0.05)
    process.popen.send_signal(number)
    for thread in asking:
        thread.join(30)
    stdout, stderr = process.popen.communicate(timeout=30)
    assert process.popen.returncode == 0, stderr
    assert answers and {*answers} <= {200, 503} and stdout == ""
    assert "everything that waited was answered" in stderr and mobile.hashes[1][:12] in stderr


def test_token_comes_from_a_file(started: Any, file: Path, mobile: Chain, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    process = started(file, "--token-file", tmp_path / "token", "--delta", mobile.deltas[0])
    assert process.said["weights_sha256"] == mobile.hashes[1] and len(process.said["lineage"]) == 1
    assert process.ask("POST", "/rollback", Authorization="Bearer wrong")[0] == 401
    assert process.ask("POST", "/rollback", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_dry_run_says_what_it_would_serve(run: Any, file: Path) -> None:
    outcome = run("serve", file, "--port", 0, "--device", "cpu", "--dry-run", "--json")
    assert outcome.code == 0 and outcome.json["dry_run"] is True and outcome.json["generator"] == "tiny"
    assert outcome.json["admin"] is False
    assert "Nothing was changed." in run("serve", file, "--port", 0, "--device", "cpu", "--dry-run").stdout


def test_port_in_use_is_refused(run: Any, file: Path) -> None:
    from guide_fast.serve.serving import Serving
    from guide_fast.serve.torch_session import TorchSession

    server = Server(Serving(TorchSession(tiny_generator())))
    port = server.server_address[1]
    outcome = run("serve", file, "--port", port, "--device", "cpu")
    server.stop()
    assert outcome.code == 2
    assert f"port {port} on 127.0.0.1 is in use; choose another one with --port" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nobody",), 2, "unknown generator 'nobody'"),
        (("FILE", "--delta", "absent"), 2, "absent does not exist"),
        (("FILE", "--token-file", "absent"), 2, "the token file absent cannot be read"),
        (("FILE", "--port", "70000"), 2, "less than or equal to 65535"),
        (("FILE", "--device", "abacus"), 2, "device 'abacus' cannot be used"),
        (("FILE", "--delta", "SECOND"), 2, "can only be applied to weights with sha256"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(
    arguments: tuple[str, ...], code: int, message: str, run: Any, file: Path, mobile: Chain
) -> None:
    names = {"FILE": file, "SECOND": mobile.deltas[1]}
    outcome = run("serve", *(names.get(word, word) for word in arguments))
    assert outcome.code == code and message in outcome.stderr


def test_short_token_is_refused(run: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDE_FAST_ADMIN_TOKEN", "secret")
    outcome = run("serve", file, "--port", 0)
    assert outcome.code == 2 and "the admin token has 6 characters" in outcome.stderr
    assert "secret" not in outcome.stderr
