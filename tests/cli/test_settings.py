"""`guide-fast settings`: what a run would use, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from guide_fast.config import Config, resolve_config


def test_printed_settings_serve_as_a_config_file(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(run("settings", "--set", "ltu.steps=7").stdout, encoding="utf-8")
    config = resolve_config(file, {}, {})
    assert config.ltu.steps == 7
    assert run("settings", "--config", file, "--json").json == config.to_dict()


def test_without_options_the_defaults_are_shown(run: Any) -> None:
    assert run("settings", "--json").json == Config().to_dict()


def test_bad_assignment_is_wrong_use(run: Any) -> None:
    outcome = run("settings", "--set", "ltu.stps=7")
    assert outcome.code == 2
    assert "ltu.steps" in outcome.stderr
