"""The report of a run: one HTML file that a person without this library can read."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from torch import Tensor

from guide_fast.artifacts import Delta, Forgotten, write_bytes
from guide_fast.errors import UsageError
from guide_fast.evaluate import wording
from guide_fast.evaluate.curve import Point, draw_curve, series
from guide_fast.evaluate.grid import picture, target_thumbnail
from guide_fast.evaluate.metrics import MAX_STRANGER_DEVIATIONS, MIN_RETAINED, forgotten_limit, passed
from guide_fast.evaluate.thumbnails import LARGE, Pair, choose

CURVE_LABEL = "similarity (proxy)"
JPEG_QUALITY = 90
CURVE_ROWS = 12  # of the table under the plot
OPINIONS = {"third_opinion": "Third opinion", "id_curricularface": "CurricularFace"}  # in the metrics -> heading


def write_report(
    folder: Path,
    *,
    forgotten: Forgotten,
    thumbnails: Sequence[Pair],
    environment: Mapping[str, object],
    target: Tensor | None = None,  # [3, R, R] in [-1, 1], rendering of the target
    curve_label: str = CURVE_LABEL,
    curve_by_judge: bool = False,
    notices: Sequence[str] = (),
    max_stranger_deviations: float = MAX_STRANGER_DEVIATIONS,
    min_retained: float = MIN_RETAINED,
) -> Path:
    """Write `report.html` into `folder`; returns its path.

    One self-contained file: no script, no request to anywhere. `forgotten.metrics` and `thumbnails` are those of an
    `Evaluation`; other plain values among the metrics are listed as they are. `curve_label` says what the numbers of
    `forgotten.report.curve` are; only with `curve_by_judge` is the judge's band of strangers drawn behind them.
    `environment` is shown as name, value. `notices` are licence notices of the weights. The two limits are those of
    `passed`. Raises UsageError when a metric or the person's thumbnail is missing, GuideFastError when the disk
    refuses.
    """
    metrics = forgotten.metrics
    missing = [name for name in ("judge", *(row.name for row in wording.ROWS)) if name not in metrics]
    if missing:
        raise UsageError(f"the metrics lack {', '.join(missing)}; pass those of `guide_fast.evaluate.evaluate`")
    limit = forgotten_limit(metrics, max_stranger_deviations=max_stranger_deviations)
    reasons = passed(metrics, max_stranger_deviations=max_stranger_deviations, min_retained=min_retained)
    people = sum(pair.kind == "bystander" for pair in thumbnails)
    template = Template(resources.files("guide_fast.evaluate").joinpath("report.html.in").read_text(encoding="utf-8"))
    page = template.substitute(
        title=_text(f"Forgetting report: {forgotten.delta.generator}"),
        verdict_class="short" if reasons else "",
        verdict=_verdict(metrics, reasons, people, max_stranger_deviations),
        pictures=_pictures(thumbnails, target),
        judge=_text(metrics["judge"]),
        metrics=_metrics(metrics, limit, min_retained) + _opinions(metrics) + _others(metrics),
        curve=_curve(forgotten.report.curve, metrics, curve_label, by_judge=curve_by_judge),
        changes=_changes(forgotten),
        environment=_facts("Software, hardware, data of the run.", environment),
        limitations=_list(wording.limitations(metrics)),
        licences=_list([*wording.LICENCES, *notices]),
    )
    path = Path(folder) / "report.html"
    write_bytes(path, page.encode())
    return path


def _text(value: object) -> str:
    return html.escape(str(value))


def _list(items: Sequence[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{_text(item)}</li>" for item in items) + "\n</ul>"


def _verdict(metrics: Mapping[str, Any], reasons: Sequence[str], people: int, deviations: float) -> str:
    word = "The evidence falls short of what was asked for." if reasons else "Forgotten, by what was asked for."
    sentences = wording.verdict(metrics, people=people, held=not reasons, max_stranger_deviations=deviations)
    shown = "\n".join(f"<p>{_text(sentence)}</p>" for sentence in sentences)
    return f'<p class="word">{word}</p>\n{_list(reasons) if reasons else ""}\n{shown}'


def _image(thumbnail: Tensor, alt: str) -> str:
    buffer = io.BytesIO()
    picture(thumbnail).save(buffer, "JPEG", quality=JPEG_QUALITY)
    size = thumbnail.shape[-1]
    return f'<img src="{_data_uri(buffer.getvalue(), "jpeg")}" width="{size}" height="{size}" alt="{_text(alt)}">'


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _pictures(thumbnails: Sequence[Pair], target: Tensor | None) -> str:
    person, *rest = choose(tuple(thumbnails)) or (None,)
    if person is None or person.kind != "person":
        raise UsageError("no thumbnail of the person to show; pass Evaluation.thumbnails whole")
    figures = [
        ("Before", person.before, "The person before forgetting"),
        ("After", person.after, "The same latent after forgetting"),
    ]
    if target is not None:
        figures.append(("Target: where the person was sent", target_thumbnail(target, LARGE), "The target face"))
    items = "".join(
        f"<li><figure>{_image(image, alt)}<figcaption>{_text(caption)}</figcaption></figure></li>\n"
        for caption, image, alt in figures
    )
    parts = [
        f'<h3>The person, similarity {person.similarity:.2f}</h3>\n<ul class="faces large">\n{items}</ul>',
        _pairs("neighbour", "Neighbours of the person in latent space", rest),
        _pairs("bystander", "Other people, who should stay as they were", rest),
    ]
    return "\n".join(parts)


def _pairs(kind: str, heading: str, pairs: Sequence[Pair]) -> str:
    items = [
        f"<li><figure>{_image(pair.before, f'{kind} {i} before')}{_image(pair.after, f'{kind} {i} after')}"
        f'<figcaption><span class="number">{pair.similarity:.2f}</span>'
        f"{' most changed of all' if pair.most_changed else ''}</figcaption></figure></li>\n"
        for i, pair in enumerate((pair for pair in pairs if pair.kind == kind), 1)
    ]
    if not items:
        return ""
    note = "Above before, below after; the number is their similarity."
    return f'<h3>{heading}</h3>\n<p class="faint">{note}</p>\n<ul class="faces">\n{"".join(items)}</ul>'


def _metrics(metrics: Mapping[str, Any], limit: float, min_retained: float) -> str:
    asked = {
        "forgotten": (f"asked for: at most {limit:.3f}", metrics["forgotten"] <= limit),
        "retained": (f"asked for: at least {min_retained:.3f}", metrics["retained"] >= min_retained),
    }
    rows = []
    for row in _rows(metrics):
        mark, note = "", ""
        if row.name in asked:
            sentence, held = asked[row.name]
            mark = " good" if held else " bad"
            note = f"<small>{sentence}: {'holds' if held else 'does not hold'}</small>"
        rows.append(_row(row, f'<td class="value{mark}">{_text(wording.shown(metrics[row.name]))}{note}</td>'))
    return _table("What was measured, with what it means.", rows)


def _rows(metrics: Mapping[str, Any]) -> list[wording.Row]:
    return [*wording.ROWS, *([wording.INCEPTION_ROW] if wording.INCEPTION_ROW.name in metrics else [])]


def _opinions(metrics: Mapping[str, Any]) -> str:
    parts = []
    for name, heading in OPINIONS.items():
        opinion = metrics.get(name)
        if opinion is None:
            continue
        rows = [
            _row(row, f'<td class="value">{_text(wording.shown(opinion[row.name]))}</td>')
            for row in (*wording.THIRD_OPINION_ROWS, wording.VIEWS_ROW)
            if row.name in opinion
        ]
        caption = f"{opinion['name']}, another face network, on its own scale."
        parts.append(f"<h3>{heading}</h3>\n" + _table(caption, rows))
    return "".join(parts)


def _others(metrics: Mapping[str, Any]) -> str:
    known = {"judge", *OPINIONS, *(row.name for row in _rows(metrics))}
    others = {name: value for name, value in metrics.items() if name not in known}
    if not others:
        return ""
    facts = _facts("Other numbers of this run, as recorded.", {name: wording.shown(others[name]) for name in others})
    return f"<details><summary>Other numbers of this run</summary>\n{facts}\n</details>\n"


def _row(row: wording.Row, cell: str) -> str:
    return (
        f'<tr><th scope="row">{_text(row.title)} <code>{_text(row.name)}</code>'
        f"<p>{_text(row.explanation)}</p></th>{cell}</tr>"
    )


def _table(caption: str, rows: Sequence[str]) -> str:
    head = '<thead><tr><th scope="col">Measurement</th><th scope="col" class="value">Value</th></tr></thead>'
    body = "\n".join(rows)
    return f"<table>\n<caption>{_text(caption)}</caption>\n{head}\n<tbody>\n{body}\n</tbody>\n</table>\n"


def _facts(caption: str, facts: Mapping[str, object]) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{_text(name)}</th><td><code>{_text(value)}</code></td></tr>'
        for name, value in facts.items()
    )
    return f'<table class="facts">\n<caption>{_text(caption)}</caption>\n<tbody>\n{rows}\n</tbody>\n</table>'


def _curve(curve: Sequence[Point], metrics: Mapping[str, Any], label: str, *, by_judge: bool) -> str:
    forgotten, retained = series(curve, "forgotten"), series(curve, "retained")
    if not forgotten and not retained:
        return ""
    strangers = (metrics["stranger_mean"], metrics["stranger_std"]) if by_judge else None
    final = (metrics["forgotten"], metrics["retained"]) if by_judge else None
    ends = " ".join(
        f"{name}: {points[0][1]:.2f} at step {points[0][0]:g}, {points[-1][1]:.2f} at step {points[-1][0]:g}."
        for name, points in (("The person", forgotten), ("Other people", retained))
        if points
    )
    alt = _text(f"Similarity over steps. {ends}")
    # two images with one of them hidden by the style sheet: <picture> would print a dark plot on white paper
    plots = "".join(
        f'<img class="{scheme}" src="{_data_uri(png, "png")}" width="1280" height="760" alt="{alt}">'
        for scheme, png in (
            (name, draw_curve(curve, label=label, strangers=strangers, final=final, dark=name == "dark"))
            for name in ("light", "dark")
        )
    )
    note = wording.CURVE_BY_JUDGE if by_judge else wording.CURVE_BY_ANOTHER
    return (
        f'<h2>How it went, step by step</h2>\n<figure class="plot">{plots}'
        f"<figcaption>Vertical axis: {_text(label)}. {_text(note)}</figcaption></figure>\n{_curve_table(curve)}\n"
    )


def _curve_table(curve: Sequence[Point]) -> str:
    points = [point for point in curve if point.get("forgotten") is not None or point.get("retained") is not None]
    stride = -(-len(points) // CURVE_ROWS)
    shown = points[::stride] if points[::stride][-1] is points[-1] else [*points[::stride], points[-1]]
    names = ("step", "forgotten", "retained", "loss")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "\n".join(
        "<tr>"
        + "".join(
            f"<td>{'' if point.get(name) is None else format(point[name], 'g' if name == 'step' else '.3f')}</td>"
            for name in names
        )
        + "</tr>"
        for point in shown
    )
    return (
        f"<details><summary>The curve as numbers</summary>\n<table>\n<caption>{len(shown)} of {len(points)} points"
        f"</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</details>"
    )


def _changes(forgotten: Forgotten) -> str:
    delta, source, target = forgotten.delta, forgotten.source, forgotten.target
    size = sum(tensor.numel() * tensor.element_size() for tensor in delta.tensors.values())
    facts = {
        "generator": delta.generator,
        "person came from": source.origin,
        "sent to": f"{target.kind}, {target.d:.2f} per style slot from the mean face",
        "layers": f"{len(changed_layers(delta))}: {', '.join(changed_layers(delta)) or 'none'}",
        "parameters moved": f"{delta.num_parameters:,} in {len(delta.tensors)} tensors",
        "delta": f"{size:,} bytes of tensors",
        "delta sha256": delta.sha256,
        "weights before, sha256": delta.base_sha256,
        "weights after, sha256": delta.result_sha256,
        "applied after delta": delta.parent_sha256 or "none, this is the first",
        "seeds": ", ".join(f"{name} {seed}" for name, seed in delta.seeds.items()) or "none recorded",
    }
    settings = ""
    if delta.config:
        text = _text(json.dumps(delta.config, indent=1, sort_keys=True, default=str))
        settings = f"\n<details><summary>Settings</summary>\n<pre><code>{text}</code></pre>\n</details>"
    return f"<p>{_text(wording.CHANGES)}</p>\n" + _facts("What the delta holds.", facts) + settings


def changed_layers(delta: Delta) -> list[str]:
    """The modules whose parameters the delta moves, in its order."""
    return list(dict.fromkeys(name.rpartition(".")[0] or name for name in delta.tensors))
