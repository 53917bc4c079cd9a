"""The report is one harmless file that stands alone."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from guide_fast.artifacts import Forgotten
from guide_fast.errors import UsageError
from guide_fast.evaluate.report import changed_layers, write_report
from guide_fast.evaluate.thumbnails import Pair

VOID = {"meta", "img", "br", "link", "input"}
HOSTILE = '<script>alert("x")</script>'

Build = Callable[..., Forgotten]
Write = Callable[..., "Page"]


class Page(HTMLParser):
    """The tags of a page; raises where one closes that is not open."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def write(forgotten: Build, pairs: tuple[Pair, ...], tmp_path: Path) -> Write:
    def call(result: Forgotten | None = None, **arguments: Any) -> Page:
        defaults = {"thumbnails": pairs, "environment": {"torch": "2.13.0", "device": "cpu"}}
        path = write_report(tmp_path / "out", forgotten=result or forgotten(), **(defaults | arguments))
        assert path == tmp_path / "out" / "report.html"
        return Page(path.read_text(encoding="utf-8"))

    return call


def test_parser_of_these_tests_notices_a_broken_page() -> None:
    with pytest.raises(AssertionError):
        Page("<p><b>x</p></b>")
    with pytest.raises(AssertionError):
        Page("<p>x")


def test_file_asks_nothing_of_the_network(write: Write) -> None:
    page = write(target=torch.zeros(3, 64, 64), curve_by_judge=True, notices=("NOTICE",))
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[\w+/=]+", "", page.source))
    for _, attributes in page.tags:
        for name in ("src", "srcset", "href"):
            assert attributes.get(name) is None or str(attributes[name]).startswith("data:image/")
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    (policy,) = [meta for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in str(policy["content"])


def test_verdict_comes_first(write: Write) -> None:
    page = write()
    assert page.text.count("Forgetting report: tiny") == 2  # title, heading
    body = page.text[page.text.rindex("Forgetting report") :]
    assert body.index("Forgotten, by what was asked for.") < body.index("What the generator makes now")
    assert "0.28, two strangers score 0.39 ± 0.06" in page.text


def test_shortfall_is_said_with_its_reasons(write: Write, metrics: dict[str, Any]) -> None:
    metrics["retained"] = 0.9
    page = write()
    assert "The evidence falls short" in page.text
    assert "Other people changed too much" in page.text
    assert "asked for: at least 0.950: does not hold" in page.text


def test_limits_are_those_of_the_request(write: Write) -> None:
    assert "The evidence falls short" in write(min_retained=0.99).text
    assert "asked for: at most 0.510" in write(max_stranger_deviations=2.0).text


def test_every_metric_is_named(write: Write, metrics: dict[str, Any]) -> None:
    page = write()
    for name in metrics.keys() - {"judge", "third_opinion"}:
        assert f"<code>{name}</code>" in page.source, name
    assert "tiny-judge" in page.text and "tiny-third" in page.text


def test_brought_networks_are_reported_under_their_names(write: Write, metrics: dict[str, Any]) -> None:
    assert "CurricularFace" not in write().text and "fid_inception" not in write().source
    metrics["id_curricularface"] = metrics["third_opinion"] | {"name": "curricularface-ir101", "forgotten": 0.123}
    assert "forgotten_person_over_views" not in write().source
    metrics["id_curricularface"]["forgotten_person_over_views"] = 0.0183
    metrics["fid_inception"] = 7.497
    page = write()
    assert "CurricularFace" in page.text and "curricularface-ir101" in page.text and "0.123" in page.text
    assert "<code>forgotten_person_over_views</code>" in page.source and "0.018" in page.text
    assert "<code>fid_inception</code>" in page.source and "7.497" in page.text
    assert "Third opinion" in page.text and "tiny-third" in page.text


def test_other_numbers_are_listed_as_they_are(write: Write, metrics: dict[str, Any]) -> None:
    metrics["seconds_per_step"] = 5.25
    page = write()
    assert "seconds_per_step" in page.text and "5.250" in page.text


def test_everything_foreign_is_escaped(write: Write, forgotten: Build, metrics: dict[str, Any]) -> None:
    metrics |= {"judge": HOSTILE, HOSTILE: HOSTILE}
    metrics["third_opinion"]["name"] = HOSTILE
    result = forgotten(
        generator=HOSTILE,
        tensors={f"{HOSTILE}.weight": torch.ones(2, dtype=torch.int32)},
        seeds={HOSTILE: 1},
        config={HOSTILE: HOSTILE},
    )
    page = write(
        result, environment={HOSTILE: HOSTILE}, curve_label=HOSTILE, notices=(HOSTILE,), target=torch.zeros(3, 8, 8)
    )
    assert "<script" not in page.source.lower()
    assert HOSTILE in page.text  # as text


def test_braces_with_dollars_survive_the_template(write: Write) -> None:
    assert "${title} $5" in write(environment={"note": "${title} $5"}).text


def test_page_is_accessible(write: Write) -> None:
    page = write(target=torch.zeros(3, 64, 64))
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("title") and len(page.all("h1")) == 1
    for image in page.all("img"):
        assert image.get("alt"), "an image without alternative text"
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))
    assert len(page.all("caption")) == len(page.all("table"))
    for header in page.all("th"):
        assert header.get("scope") in ("row", "col")


def contrast(a: str, b: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_suffices_in_light_as_in_dark(write: Write) -> None:
    page = write()
    schemes = re.findall(r":root \{(.*?)\}", page.source, re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", scheme))
        for ink, paper in [
            ("ink", "paper"),
            ("faint", "paper"),
            ("good", "paper"),
            ("bad", "paper"),
            ("good", "good-card"),
            ("bad", "bad-card"),
            ("ink", "good-card"),
            ("ink", "bad-card"),
        ]:
            assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)


def test_page_fits_dark_screens_phones_with_paper(write: Write) -> None:
    source = write().source
    for rule in ("prefers-color-scheme: dark", "max-width: 34rem", "@media print", "width=device-width"):
        assert rule in source


def test_size_stays_small_for_mail(write: Write) -> None:
    assert len(write(target=torch.rand(3, 256, 256)).source) < 2_000_000  # noise; faces take a quarter


def test_plot_comes_for_light_as_for_dark(write: Write) -> None:
    page = write()
    light, dark = [image for image in page.all("img") if image.get("class") in ("light", "dark")]
    assert light["src"] != dark["src"] and light["alt"] == dark["alt"]
    assert "1.00 at step 0, 0.29 at step 50" in str(light["alt"])


def test_curve_is_optional(write: Write, forgotten: Build) -> None:
    assert "step by step" in write().text
    assert "step by step" not in write(forgotten(curve=())).text


def test_band_needs_a_curve_of_the_judge(write: Write) -> None:
    assert "no band of strangers is drawn" in write(curve_label="dlib").text
    assert "the band is what two strangers score" in write(curve_by_judge=True).text


def test_changes_are_counted(write: Write, forgotten: Build) -> None:
    text = write().text
    assert "20 in 1 tensors" in text and "80 bytes" in text
    for digest in (forgotten().delta.sha256, "a" * 64, "b" * 64):
        assert digest in text
    delta = forgotten(tensors={f"b.{name}": torch.ones(1) for name in ("c.weight", "c.bias", "d.weight")}).delta
    assert changed_layers(delta) == ["b.c", "b.d"]


def test_same_inputs_give_the_same_bytes(write: Write) -> None:
    assert write().source == write().source


def test_missing_metric_is_named(write: Write, metrics: dict[str, Any]) -> None:
    del metrics["retained"]
    with pytest.raises(UsageError, match="lack retained"):
        write()


def test_missing_person_is_refused(write: Write, pairs: tuple[Pair, ...]) -> None:
    with pytest.raises(UsageError, match="no thumbnail of the person"):
        write(thumbnails=pairs[1:])
