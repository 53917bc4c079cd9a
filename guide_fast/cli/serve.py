"""`guide-fast serve`: images over HTTP, from weights that may be exchanged meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guide_fast.cli import options
from guide_fast.cli.options import examples
from guide_fast.cli.output import Output, one_line
from guide_fast.errors import UsageError

if TYPE_CHECKING:
    from guide_fast.serve.server import Server

TOKEN = "GUIDE_FAST_ADMIN_TOKEN"
BATCHES, ACCESS = "Batches", "Access"


def serve(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            help="A folder written by `export`, a known generator, or a generator file.",
            metavar="[FOLDER|GENERATOR]",
        ),
    ] = options.DEFAULT_GENERATOR,
    port: Annotated[int, typer.Option(help="0 takes any free one.", min=0, max=65535, rich_help_panel=ACCESS)] = 8765,
    host: Annotated[
        str, typer.Option(help="Who may connect: this machine, unless told otherwise.", rich_help_panel=ACCESS)
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None,
        typer.Option(
            help=f"A file with the token that exchanging weights needs; else {TOKEN}.",
            show_default=False,
            rich_help_panel=ACCESS,
        ),
    ] = None,
    delta: options.EarlierDeltas = None,
    label: options.Label = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda.", show_default="cuda where there is one, else cpu")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of one batch on the CPU.", min=1, show_default="the runtime's")
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(help="Images of one batch.", min=1, show_default="8, on a CPU 1", rich_help_panel=BATCHES),
    ] = None,
    max_wait: Annotated[
        float,
        typer.Option(help="Milliseconds that a request waits for others.", min=0, max=60000, rich_help_panel=BATCHES),
    ] = 5.0,
    queue: Annotated[
        int, typer.Option(help="Requests that may wait; one more is refused.", min=1, rich_help_panel=BATCHES)
    ] = 64,
    workers: Annotated[int, typer.Option(help="Batches at a time.", min=1, rich_help_panel=BATCHES)] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds for a request that says none.", min=0.1, max=600)] = 60.0,
    drain: Annotated[float, typer.Option(help="Seconds to answer what waits, at the end.", min=0, max=3600)] = 30.0,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Render over HTTP until Ctrl-C or SIGTERM, then answer what waits.

    POST /render takes {"seed": 7}, or "z" or "w", with "truncation", "format" (png, raw). POST /apply (a delta file as
    the body) and POST /rollback exchange the weights between two batches; they need the admin token as
    "Authorization: Bearer TOKEN". GET /healthz, /version, /metrics (Prometheus).
    """
    deltas = [options.delta_file(path) for path in delta or ()]
    batching = {"max_batch": max_batch, "max_wait": max_wait / 1e3, "queue": queue, "workers": workers}
    with Output(context, json=json, quiet=quiet) as output:
        from guide_fast.serve import opening
        from guide_fast.serve.server import Server, check_token
        from guide_fast.serve.serving import Serving

        token = check_token(_token(token_file))
        output.on_interrupt = "stopped before it served"
        session = opening.open_session(
            source, device=device, threads=threads, batch=max_batch, deltas=deltas, label=label
        )
        serving = Serving(session, **batching)
        try:
            server = Server(serving, host=host, port=port, token=token, timeout=timeout)
        except BaseException:
            serving.close(timeout=0)
            raise
        described = serving.describe() | {"url": server.url, "admin": token is not None}
        if dry_run:
            server.stop(timeout=0)
            lines = [f"Would serve {_said(described)}.", "Nothing was changed."]
            output.result(lines, {**described, "dry_run": True})
            return
        output.note(f"warmed up in {session.warm_up():.1f} s")
        if token is None:
            output.note(f"without {TOKEN} or --token-file nobody may exchange the weights")
        _run(server, drain, described, output)


def _run(server: Server, drain: float, described: Mapping[str, Any], output: Output) -> None:
    """Serve in a thread, wait for a signal in this one."""
    answering = threading.Thread(target=server.serve_forever, name="guide-fast-accept", daemon=True)
    answering.start()
    output.result([f"Serving {_said(described)}."], described)
    try:
        while answering.is_alive():
            answering.join(1.0)
    except KeyboardInterrupt:  # Ctrl-C, SIGTERM: this is how a server ends
        output.note("answering what waits; once more stops at once")
    output.on_interrupt = "stopped before everything that waited was answered"
    drained = server.stop(timeout=drain)
    output.note("everything that waited was answered" if drained else f"refused what waited longer than {drain:g} s")


def _said(described: Mapping[str, Any]) -> str:
    count = len(described["lineage"])
    deltas = f", {count} delta{'s' if count > 1 else ''} applied" if count else ""
    sha256 = described["weights_sha256"][:12]
    return f"{described['generator']} ({described['runtime']}, weights {sha256}{deltas}) on {described['url']}"


def _token(file: Path | None) -> str | None:
    """From the file, else from the environment."""
    if file is None:
        return os.environ.get(TOKEN)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = one_line(str(getattr(error, "strerror", None) or error))
        raise UsageError(f"the token file {file} cannot be read ({said}); write one with --token-file") from None


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            "guide-fast serve --port 8765",
            "guide-fast serve exported --token-file token",
            "curl -d '{\"seed\": 7}' -o face.png http://127.0.0.1:8765/render",
            "curl -H 'Authorization: Bearer TOKEN' --data-binary @delta.safetensors http://127.0.0.1:8765/apply",
        )
    )(serve)
