"""`guide-fast settings`: every setting with its value, as a file for --config."""

from __future__ import annotations

import typer

from guide_fast.cli import options
from guide_fast.cli.options import examples
from guide_fast.cli.output import Output


def settings(
    context: typer.Context,
    config: options.ConfigFile = None,
    assignments: options.Assignments = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Print every setting as a run would use it here: a TOML file that --config takes.

    Flags win over GUIDE_FAST_<SECTION>_<KEY> variables, these over --config, that over the defaults.
    """
    resolved = options.settings(config, assignments, {})
    from guide_fast.config import settings_toml

    with Output(context, json=json, quiet=quiet) as output:
        output.result(settings_toml(resolved).splitlines(), resolved.to_dict())


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog=examples("guide-fast settings > settings.toml", "guide-fast settings --set ltu.lr=3e-4"))(
        settings
    )
