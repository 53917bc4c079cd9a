"""What a server answers to each request. Imports no torch."""

from __future__ import annotations

import hmac
import json
import logging
import select
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guide_fast.errors import BusyError, GuideFastError, IntegrityError, RefusedError, UsageError
from guide_fast.serve import metrics
from guide_fast.serve.batcher import Answer
from guide_fast.serve.pictures import pixels, png
from guide_fast.serve.requests import RenderRequest
from guide_fast.serve.session import Swap

if TYPE_CHECKING:
    from guide_fast.serve.server import Server

LONGEST_REQUEST = 8 << 20  # bytes; W+ of 1024 px is a tenth of that as JSON
LONGEST_DELTA = 1 << 30
PIECE = 1 << 20
LINGER = 16  # pieces of a refused body that are read and thrown away
LOOK_AFTER = 0.2  # seconds between two looks whether the client is still there
STATUS: dict[type[Exception], int] = {UsageError: 400, IntegrityError: 422, RefusedError: 403, BusyError: 503}

log = logging.getLogger(__name__)


class Refusal(Exception):
    """An answer of HTTP itself: a status with a sentence."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status, self.headers = status, headers


class Gone(Exception):
    """The client has left."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "guide-fast", ""
    disable_nagle_algorithm = True  # head and body leave one after the other
    server: Server
    _left = 0  # bytes of the body that were not read; -1 where that is not known

    def setup(self) -> None:
        """A client that says nothing is not waited for."""
        self.request.settimeout(self.server.patience)
        super().setup()

    def do_GET(self) -> None:
        """/healthz, /version, /metrics."""
        self._answer("GET")

    def do_POST(self) -> None:
        """/render, /apply, /rollback."""
        self._answer("POST")

    def handle_expect_100(self) -> bool:
        """Nothing yet: a client that may not upload is told so before it does."""
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses: a request that is no HTTP, a method that nobody answers."""
        self._left, self.request_version = -1, self.protocol_version  # a status line even for what was no HTTP
        self._refuse(code, message or self.responses[HTTPStatus(code)][0], {})

    def log_message(self, format: str, *arguments: Any) -> None:
        """Access goes to the log, quietly."""
        log.debug("%s %s", self.address_string(), format % arguments)

    def _answer(self, method: str) -> None:
        self.server.answering(1)
        try:
            self._left = self._announced()
            self._route(method)()
        except Gone:
            self.close_connection = True
        except Refusal as refusal:
            self._refuse(refusal.status, str(refusal), refusal.headers)
        except GuideFastError as error:
            status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
            self._refuse(status, str(error), {"Retry-After": "1"} if status == 503 else {})
        except CancelledError:
            self._refuse(503, "the server has shut down before this request's turn; ask another one", {})
        except OSError:  # the client has left, or was silent for too long
            self.close_connection = True
        except Exception as error:
            log.exception("%s %s failed", method, self.path)
            self._refuse(500, f"unexpected {type(error).__name__}; the server's log has more", {})
        finally:
            self.server.answering(-1)

    def _route(self, method: str) -> Callable[[], None]:
        routes: dict[str, dict[str, Callable[[], None]]] = {
            "GET": {"/healthz": self._health, "/version": self._version, "/metrics": self._metrics},
            "POST": {"/render": self._render, "/apply": self._apply, "/rollback": self._rollback},
        }
        path = self.path.partition("?")[0]
        for other, group in routes.items():
            if path in group and other != method:
                raise Refusal(405, f"{path} answers {other} alone", Allow=other)
        if path not in routes[method]:
            known = ", ".join(path for group in routes.values() for path in group)
            raise Refusal(404, f"{path} is not known; there are {known}")
        return routes[method][path]

    def _health(self) -> None:
        if self.server.draining:
            raise BusyError("shutting down")
        self._nothing_more()
        self._json(200, {"status": "ok", "waiting": self.server.serving.batcher.depth})

    def _version(self) -> None:
        self._nothing_more()
        self._json(200, self.server.serving.describe())

    def _metrics(self) -> None:
        self._nothing_more()
        self._send(200, self.server.serving.registry.text().encode(), metrics.CONTENT_TYPE)

    def _render(self) -> None:
        serving = self.server.serving
        body = b"".join(self._body(LONGEST_REQUEST))
        request = RenderRequest.parse(body, z_dim=serving.session.shape.z_dim, timeout=self.server.request_timeout)
        answer = self._waited(serving.submit(**request.latent, timeout=request.timeout), request.timeout)
        headers = {
            "X-Weights-Sha256": answer.version.weights_sha256,
            "X-Deltas": ",".join(answer.version.lineage),
            "X-Batch": str(answer.batch),
            "X-Waited-Seconds": f"{answer.waited_seconds:.6f}",
            "X-Rendered-Seconds": f"{answer.rendered_seconds:.6f}",
        }
        if request.format == "png":
            self._send(200, png(answer.image), "image/png", headers)
        else:
            rows = pixels(answer.image)
            headers["X-Shape"] = ",".join(map(str, rows.shape))
            self._send(200, rows.tobytes(), "application/octet-stream", headers)

    def _waited(self, future: Future[Answer], seconds: float) -> Answer:
        """The answer; raises BusyError when it takes too long, Gone when nobody would read it any more."""
        end = time.monotonic() + seconds
        while True:
            try:
                return future.result(min(LOOK_AFTER, max(end - time.monotonic(), 0.001)))
            except TimeoutError:
                if self._client_left():
                    future.cancel()
                    raise Gone from None
                if time.monotonic() >= end:
                    future.cancel()
                    raise BusyError(f"not rendered within {seconds:g} s; ask later, or give more as timeout") from None

    def _client_left(self) -> bool:
        try:
            readable, _, _ = select.select([self.connection], [], [], 0)
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def _apply(self) -> None:
        self._check_admin()
        with self._uploaded() as delta:
            self._swapped(self.server.serving.apply(delta))

    def _rollback(self) -> None:
        self._check_admin()
        self._nothing_more()
        self._swapped(self.server.serving.rollback())

    def _check_admin(self) -> None:
        token = self.server.token
        if token is None:
            raise Refusal(
                403,
                "this server has no admin token, so that nobody may exchange its weights; start it with "
                "GUIDE_FAST_ADMIN_TOKEN or --token-file",
            )
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise Refusal(
                401,
                "the admin token is missing or wrong; send Authorization: Bearer TOKEN",
                **{"WWW-Authenticate": "Bearer"},
            )

    @contextmanager
    def _uploaded(self) -> Iterator[Path]:
        """The body as a file, for as long as it is needed."""
        with tempfile.TemporaryDirectory(prefix="guide-fast-") as folder:
            path = Path(folder) / "delta.safetensors"
            with path.open("wb") as file:
                for piece in self._body(LONGEST_DELTA):
                    file.write(piece)
            yield path

    def _swapped(self, swap: Swap) -> None:
        self._json(
            200,
            {
                "before": swap.before.to_dict(),
                "after": swap.after.to_dict(),
                "prepare_seconds": swap.prepare_seconds,
                "exchange_seconds": swap.exchange_seconds,
            },
        )

    def _announced(self) -> int:
        """Bytes of the body; raises Refusal where its length is not said."""
        self._left = -1  # unknown
        said = self.headers.get("Content-Length")
        if "Transfer-Encoding" in self.headers or (
            said is None and self.command == "POST" and self.path != "/rollback"
        ):
            raise Refusal(411, "the body's length is missing; send Content-Length")
        if said is not None and not (said.isascii() and said.isdigit()):
            raise Refusal(400, f"Content-Length is {said!r}; send the number of bytes")
        return int(said or 0)

    def _nothing_more(self) -> None:
        for _ in self._body(0):
            pass

    def _body(self, longest: int) -> Iterator[bytes]:
        """The body in pieces; raises Refusal when it is too long, Gone when its end never comes."""
        if self._left > longest:
            raise Refusal(413, f"the body has {self._left} bytes; {self.path} takes at most {longest}")
        if self._left and self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        while self._left:
            piece = self.rfile.read(min(self._left, PIECE))
            if not piece:
                raise Gone
            self._left -= len(piece)
            yield piece

    def _json(self, status: int, content: Mapping[str, Any], headers: Mapping[str, str] = {}) -> None:
        self._send(status, (json.dumps(content) + "\n").encode(), "application/json", headers)

    def _refuse(self, status: int, text: str, headers: Mapping[str, str]) -> None:
        if not self._left:
            self._json(status, {"error": " ".join(text.split())}, headers)
            return
        # what is left of the body must not be read as the next request; closing with it unread would lose the answer
        self.close_connection = True
        try:
            self._json(status, {"error": " ".join(text.split())}, {**headers, "Connection": "close"})
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(LOOK_AFTER)
            for _ in range(LINGER):
                if not self.rfile.read1(PIECE):
                    break
        except OSError:
            log.debug("%s left before it was told %d", self.address_string(), status)

    def _send(self, status: int, body: bytes, kind: str, headers: Mapping[str, str] = {}) -> None:
        if self.server.draining:
            self.close_connection = True
            headers = {**headers, "Connection": "close"}
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
