"""HTTP around a `Serving`: sockets, threads, an orderly end. Imports no torch."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from http.server import ThreadingHTTPServer
from typing import Any

from guide_fast.errors import UsageError
from guide_fast.serve.routes import Handler
from guide_fast.serve.serving import Serving

SHORTEST_TOKEN = 16
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

log = logging.getLogger(__name__)


class Server(ThreadingHTTPServer):
    """Answers on one address until `stop`; a thread for each connection, at most `connections` of them.

    Routes: POST /render, /apply, /rollback; GET /healthz, /version, /metrics. /apply and /rollback need `token`, as
    `Authorization: Bearer TOKEN`; without one they are refused to everybody.
    """

    daemon_threads = True  # an idle connection does not keep the process alive
    request_queue_size = 128

    def __init__(
        self,
        serving: Serving,
        *,
        host: str = "127.0.0.1",
        port: int = 0,  # 0: any free one
        token: str | None = None,
        connections: int = 256,
        timeout: float = 60.0,  # of a request that says none
        patience: float = 30.0,  # for a silent client
    ) -> None:
        """Raises UsageError for an address that cannot be had, a token that is too short."""
        if not 0 <= port <= 65535:
            raise UsageError(f"port {port} is out of range; give 1 to 65535, or 0 for any free one")
        self.serving, self.token = serving, check_token(token)
        self.request_timeout, self.patience = timeout, patience
        self.draining = self._served = False
        self._slots = threading.Semaphore(connections)
        self._answering = 0
        self._idle = threading.Condition()
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            raise UsageError(_said(host, port, error)) from None

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def stop(self, *, timeout: float | None = 30.0) -> bool:
        """Take no more connections, render what waits for at most `timeout` seconds, answer, then free everything.

        Called from another thread than `serve_forever`, or after it. Whether every request was rendered.
        """
        self.draining = True
        if self._served:
            self.shutdown()
        drained = self.serving.close(timeout=timeout)
        with self._idle:
            self._idle.wait_for(lambda: not self._answering, 5.0)  # the last answers are on their way
        self.server_close()
        return drained

    def serve_forever(self, poll_interval: float = 0.1) -> None:
        """Answer until `stop`."""
        self._served = True
        super().serve_forever(poll_interval)

    def answering(self, change: int) -> None:
        """A request begins (1), ends (-1)."""
        with self._idle:
            self._answering += change
            self._idle.notify_all()

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, or refused at once when there are too many."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        try:
            request.settimeout(1.0)
            request.sendall(BUSY)
        except OSError:
            log.debug("a client left before it could be refused")
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One connection, from its first request to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """What a connection broke with; a client that left is no error."""
        log.debug("a connection ended early", exc_info=True)


def _said(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; choose another one with --port, or 0 for any that is free"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} on {host} may not be opened by this user; choose one above 1023 with --port"
    return f"cannot listen on {host}, port {port}: {error.strerror or error}; choose another --host"


def check_token(text: str | None) -> str | None:
    """A token as a file or a variable gives it, without the line's end; None where there is none.

    Raises UsageError for one that is too short to be a secret.
    """
    if text is None:
        return None
    token = text.strip()
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise UsageError(
            f"the admin token has {len(token)} characters; take at least {SHORTEST_TOKEN} printable ASCII ones"
        )
    return token
