"""`guide-fast bench`: measure speed on this machine, at checked correctness, against baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from guide_fast.cli import options
from guide_fast.cli.options import examples
from guide_fast.cli.output import Output
from guide_fast.errors import EvidenceError, UsageError

Out = Annotated[
    Path, typer.Option("--out", help="Folder of the results: JSON, a Markdown table, pictures.", metavar="FOLDER")
]
Quick = Annotated[bool, typer.Option("--quick", help="As little as still says something.")]
Threads = Annotated[
    int | None, typer.Option(help="Threads, instead of the benchmark's own number.", min=1, show_default=False)
]
Rounds = Annotated[
    int | None, typer.Option(help="Rounds, instead of the benchmark's own number.", min=1, show_default=False)
]
Seeds = Annotated[
    str | None,
    typer.Option("--seeds", help="People, instead of the benchmark's.", metavar="INT,INT,...", show_default=False),
]

group = typer.Typer(
    name="bench",
    help="Measure speed on this machine: no figure before its correctness was checked in the same run.",
    epilog=examples(
        "guide-fast bench forget --seeds 0,1",
        "guide-fast bench step --json",
        "guide-fast bench --compare before/forget.json after/forget.json",
    ),
)


@group.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", help="Two stored results of one benchmark.", metavar="A B", show_default=False),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare two stored results, or run the benchmark that a command names."""
    if compare is None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help(), nl=False)
            raise typer.Exit(2)
        return
    if context.invoked_subcommand is not None:
        raise UsageError(f"--compare reads stored results and runs nothing; leave {context.invoked_subcommand} out")
    from guide_fast.bench import compare as comparison

    with Output(context, json=json, quiet=quiet) as output:
        compared = comparison.compare(*compare)
        output.result(comparison.lines(compared), compared)


@group.command(epilog=examples("guide-fast bench forget", "guide-fast bench forget --seeds 0,1 --json"))
def forget(
    context: typer.Context,
    seeds: Seeds = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Baselines, instead of the benchmark's: published, compiled, compiled_256, compiled_lr.",
            metavar="NAME,NAME,...",
            show_default=False,
        ),
    ] = None,
    threads: Threads = None,
    quick: Quick = False,
    out: Out = Path("out/bench"),
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Seconds per person against both baselines at equal quality; a stopped run goes on where it was."""

    def run(specification: Any, folder: Path, output: Output) -> tuple[Mapping[str, Any], Iterable[str]]:
        from guide_fast.bench import forget, forget_figures

        result = forget.run(specification, folder / "forget", progress=output.progress)
        return result, forget_figures.words(result)

    racing = None if against is None else [name.strip() for name in against.split(",")]
    changes = {"seeds": None if seeds is None else _numbers(seeds), "race": racing, "threads": threads}
    _measure(context, "forget", changes, run, out=out, quick=quick, json=json, quiet=quiet)


@group.command(epilog=examples("guide-fast bench step", "guide-fast bench step --quick --json"))
def step(
    context: typer.Context,
    threads: Threads = None,
    quick: Quick = False,
    out: Out = Path("out/bench"),
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """One step taken apart: a waterfall from the published loop's to ours, switch by switch."""

    def run(specification: Any, folder: Path, output: Output) -> tuple[Mapping[str, Any], Iterable[str]]:
        from guide_fast.bench import step

        result = step.run(specification, progress=output.progress)
        return result, step.words(result)

    _measure(context, "step", {"threads": threads}, run, out=out, quick=quick, json=json, quiet=quiet)


@group.command(
    epilog=examples(
        "guide-fast bench generator mobilestylegan",
        "guide-fast bench generator stylegan2 --rounds 5",
        "guide-fast bench generator eg3d_renderer --json",
    )
)
def generator(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="mobilestylegan, stylegan2 or eg3d_renderer.", metavar="[NAME]")
    ] = "mobilestylegan",
    rounds: Rounds = None,
    threads: Threads = None,
    quick: Quick = False,
    out: Out = Path("out/bench"),
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """One image of a generator: our path beside others that compute the same, in turn."""

    def run(specification: Any, folder: Path, output: Output) -> tuple[Mapping[str, Any], Iterable[str]]:
        from guide_fast.bench import generator

        result = generator.run(specification)
        return result, generator.words(result)

    changes = {"rounds": rounds, "threads": threads}
    _measure(context, name, changes, run, kind="generator", out=out, quick=quick, json=json, quiet=quiet)


@group.command(epilog=examples("guide-fast bench ops", "guide-fast bench ops haar face_crop --quick"))
def ops(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Operations; all of them when none is named.", metavar="[OP]...", show_default=False),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Cases that begin later are left out.", min=1, show_default=False)
    ] = None,
    threads: Threads = None,
    quick: Quick = False,
    out: Out = Path("out/bench"),
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """The operations against plain PyTorch, eager and compiled, on the GPU where there is one."""

    def run(specification: Any, folder: Path, output: Output) -> tuple[Mapping[str, Any], Iterable[str]]:
        from guide_fast.bench import ops

        result = ops.run(specification, progress=output.progress)
        return result, ops.words(result)

    changes = {"ops": names or None, "seconds": seconds, "threads": threads}
    _measure(context, "ops", changes, run, out=out, quick=quick, json=json, quiet=quiet)


@group.command(epilog=examples("guide-fast bench serve", "guide-fast bench serve --quick --json"))
def serve(
    context: typer.Context,
    against: Annotated[
        str | None,
        typer.Option(
            help="Servers beside ours, instead of the benchmark's: eager, onnxruntime, openvino, ...",
            metavar="NAME,NAME,...",
            show_default=False,
        ),
    ] = None,
    rounds: Rounds = None,
    quick: Quick = False,
    out: Out = Path("out/bench"),
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Latency and images a second against offered load, beside plain PyTorch, ONNX Runtime, OpenVINO."""
    from guide_fast.bench import specification

    def run(specification: Any, folder: Path, output: Output) -> tuple[Mapping[str, Any], Iterable[str]]:
        from guide_fast.bench import serve

        result = serve.run(specification, progress=output.progress)
        return result, serve.words(result)

    contenders = None
    if against is not None:
        known = specification.load("serve").values
        named = [name.strip() for name in against.split(",") if name.strip()]
        for name in named:
            if name not in known["contenders"]:
                raise UsageError(f"there is no server {name}; choose of {', '.join(known['contenders'])}")
        contenders = {n: c for n, c in known["contenders"].items() if n in named or n == known["ours"]}
    changes = {"contenders": contenders, "rounds": rounds}
    _measure(context, "serve", changes, run, out=out, quick=quick, json=json, quiet=quiet)


def _measure(
    context: typer.Context,
    name: str,
    changes: Mapping[str, Any],
    run: Callable[[Any, Path, Output], tuple[Mapping[str, Any], Iterable[str]]],
    *,
    kind: str | None = None,
    out: Path,
    quick: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Run one benchmark, store what it found, say it; exit 3 where something failed its gate."""
    from guide_fast.bench import report, specification

    if kind is not None and name not in (known := specification.names(kind)):
        raise UsageError(f"{name} is no benchmark of a {kind}; choose one of {', '.join(known)}")
    chosen = specification.load(name, quick=quick).changed(**changes)
    folder = options.folder_to_write(out)
    with Output(context, json=json, quiet=quiet) as output:
        report.check_writable(folder)
        output.on_interrupt = f"stopped; what is complete stays in {folder}, run the same command to go on"
        result, said = run(chosen, folder, output)
        files = report.write(result, folder)
        lines = [*said, *report.goal_lines(result), *map(str, files)]
        output.result(lines, {**result, "files": files})
    failed = [row for row in result["rows"] if row.get("gate", "passed") != "passed"]
    if failed:
        output.problem(f"{len(failed)} of {len(result['rows'])} rows have no speed: {failed[0]['gate']}")
        raise typer.Exit(EvidenceError.exit_code)


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--seeds {text} is no list of whole numbers; write --seeds 0,1,2") from None
    for number in numbers:
        options.check_seed(number)
    if len({*numbers}) != len(numbers):
        raise UsageError(f"--seeds {text} names a person twice; name each once")
    return numbers


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.add_typer(group)
