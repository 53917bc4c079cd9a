"""The application: every command under one name, every outcome as an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence

import typer

from guide_fast.cli import (
    apply,
    assets,
    bench,
    convert,
    doctor,
    evaluate,
    export,
    forget,
    invert,
    render,
    serve,
    settings,
)
from guide_fast.cli.output import INTERRUPTED, PROGRAM, Session, as_json, one_line
from guide_fast.cli.signals import TERMINATED, terminable, was_terminated
from guide_fast.errors import GuideFastError

# What the argument parser raises on wrong use; its package was renamed between releases, its position was not.
PARSER_ERROR: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name=PROGRAM,
    help="Make a pretrained face generator forget a person, from one photo, with evidence.",
    epilog="Start with: guide-fast doctor\n\nSettings: flags, then GUIDE_FAST_<SECTION>_<KEY>, then --config, win over "
    "defaults; `guide-fast settings` lists them.\n\nExit codes: 0 done, 1 failed, 2 wrong use, 3 the evidence falls "
    "short, 4 refused, 5 integrity, 130 stopped, 143 terminated.",
)
for group in (forget, invert, evaluate, render, apply, convert, export, assets, serve, bench, settings, doctor):
    group.register(app)


@app.callback(invoke_without_command=True)
def guide_fast(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version.", is_eager=True),
) -> None:
    """Answer what needs no command: the version, the help."""
    if version:
        print(f"{PROGRAM} {_version()}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)
        raise typer.Exit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Never lets a traceback out unless GUIDE_FAST_DEBUG is set."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    json = "--json" in arguments
    debug = os.environ.get("GUIDE_FAST_DEBUG", "") not in ("", "0")
    # Whatever a library prints goes to stderr: with --json, stdout holds one object and nothing else.
    aside = contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext()
    session = Session(tuple(arguments), sys.stdout)
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
        try:
            with aside, terminable():
                result = typer.main.get_command(app).main(
                    arguments, prog_name=PROGRAM, standalone_mode=False, obj=session
                )
            return result if isinstance(result, int) else 0
        except BrokenPipeError:  # the reader of stdout has left: nobody to tell
            return 1
        except (Exception, KeyboardInterrupt) as error:
            text, code = _explained(error, debug)
            if debug:
                import traceback

                traceback.print_exception(error)
    text = one_line(text)
    if json:
        print(as_json({"error": text, "exit_code": code}))
    else:
        print(f"{PROGRAM}: {text}", file=sys.stderr)
    return code


def _explained(error: BaseException, debug: bool) -> tuple[str, int]:
    """One sentence, with the exit code."""
    if isinstance(error, GuideFastError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "stopped; nothing was written", TERMINATED if was_terminated(error) else INTERRUPTED
    if isinstance(error, PARSER_ERROR):
        context = getattr(error, "ctx", None)
        said = error.format_message() if hasattr(error, "format_message") else str(error)
        return f"{said.rstrip('.?')}; see `{context.command_path if context else PROGRAM} --help`", 2
    text = f"unexpected {type(error).__name__}: {one_line(str(error))}"
    return text if debug else f"{text}; run again with GUIDE_FAST_DEBUG=1 for the traceback", 1


def _version() -> str:
    from importlib import metadata  # slow to import; only --version needs it

    try:
        return metadata.version(PROGRAM)
    except metadata.PackageNotFoundError:
        return "(not installed)"
