"""`guide-fast doctor`: what works on this machine, what to do about the rest."""

from __future__ import annotations

from typing import Annotated

import typer

from guide_fast.cli import options
from guide_fast.cli.options import examples
from guide_fast.cli.output import Output
from guide_fast.errors import GuideFastError, UsageError


def doctor(
    context: typer.Context,
    layers: Annotated[
        bool, typer.Option("--layers", help="List the generator's layer names instead, coarse to fine.")
    ] = False,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Say instead what the operations run on here, what was measured.")
    ] = False,
    generator: options.GeneratorName = options.DEFAULT_GENERATOR,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Say what works on this machine, what to do about the rest; exit 1 when something required is broken."""
    if layers and kernels:
        raise UsageError("--layers and --kernels are two reports; ask for one of them")
    with Output(context, json=json, quiet=quiet) as output:
        if layers:
            _list_layers(output, generator)
            return
        if kernels:
            from guide_fast.cli.kernel_checks import report

            output.result(*report())
            return
        from guide_fast.cli.checks import run_checks

        checks = run_checks()
        broken = [check for check in checks if check.state == "broken"]
        lines = []
        for check in checks:
            lines.append(f"{check.state:8}{check.name}: {check.found}")
            if check.advice:
                lines.append(f"{'':8}-> {check.advice}")
        missing = [check for check in checks if check.state == "missing"]
        works = (
            f"Nothing is broken; {len(missing)} are missing, with what to do above." if missing else "All of it works."
        )
        lines.append("Something required is broken." if broken else works)
        output.result(lines, {"ok": not broken, "checks": [vars(check) for check in checks]})
        if broken:
            raise typer.Exit(GuideFastError.exit_code)


def _list_layers(output: Output, name: str) -> None:
    from guide_fast import pipeline

    generator = pipeline.load_generator(name, low_resolution=False)
    sizes = {
        layer: sum(parameter.numel() for parameter in generator.layer_parameters(layer).values())
        for layer in generator.layers
    }
    width = max(map(len, sizes))
    lines = [f"{layer:{width}}  {size:>9,} parameters" for layer, size in sizes.items()]
    output.result(lines, {"generator": generator.name, "layers": sizes})


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        epilog=examples(
            "guide-fast doctor", "guide-fast doctor --layers", "guide-fast doctor --kernels", "guide-fast doctor --json"
        )
    )(doctor)
