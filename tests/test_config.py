"""Settings: which source wins, what is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from guide_fast.config import (
    NOT_SETTINGS,
    Config,
    InvertConfig,
    LtuConfig,
    check_config,
    resolve_config,
    settings_toml,
)
from guide_fast.errors import UsageError


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text('[ltu]\nsteps = 50\nlr = 1\nlayers = "coarse"\n[target]\nkind = "mean"\n', encoding="utf-8")
    return path


def refusal(toml: Path | None, environment: dict[str, str], overrides: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        resolve_config(toml, environment, overrides)
    return str(caught.value)


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "settings.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_no_source_gives_the_defaults() -> None:
    assert resolve_config(None, {}, {}) == Config()


def test_toml_wins_over_defaults(toml: Path) -> None:
    config = resolve_config(toml, {}, {})
    assert (config.ltu.steps, config.ltu.layers, config.target.kind) == (50, "coarse", "mean")
    assert config.ltu.n_adjacent == LtuConfig().n_adjacent
    assert config.invert == InvertConfig()


def test_environment_wins_over_toml(toml: Path) -> None:
    config = resolve_config(toml, {"GUIDE_FAST_LTU_STEPS": "40", "GUIDE_FAST_INVERT_STEPS_W_PLUS": "9"}, {})
    assert (config.ltu.steps, config.invert.steps_w_plus, config.ltu.layers) == (40, 9, "coarse")


def test_overrides_win_over_environment(toml: Path) -> None:
    environment = {"GUIDE_FAST_LTU_STEPS": "40", "GUIDE_FAST_LTU_LR": "0.5"}
    config = resolve_config(toml, environment, {"ltu.steps": 30, "ltu.lr": None})
    assert (config.ltu.steps, config.ltu.lr) == (30, 0.5)


def test_whole_number_serves_as_a_number(toml: Path) -> None:
    lr = resolve_config(toml, {}, {}).ltu.lr
    assert (lr, type(lr)) == (1.0, float)


def test_override_given_as_text_is_read_by_type() -> None:
    config = resolve_config(None, {}, {"ltu.steps": "12", "ltu.lr": "1e-3", "ltu.layers": "fine"})
    assert (config.ltu.steps, config.ltu.lr, config.ltu.layers) == (12, 1e-3, "fine")


@pytest.mark.parametrize("name", [*sorted(NOT_SETTINGS), "PATH"])
def test_variable_that_is_no_setting_by_design_is_left_alone(name: str) -> None:
    assert resolve_config(None, {name: "1"}, {}) == Config()


@pytest.mark.parametrize("overrides", [{}, {"ltu.lr": 3e-5, "ltu.layers": "blocks.[0-3].*", "ltu.warm_start": False}])
def test_settings_file_reads_back_as_it_was(tmp_path: Path, overrides: dict[str, Any]) -> None:
    config = resolve_config(None, {}, overrides)
    file = tmp_path / "settings.toml"
    file.write_text(settings_toml(config), encoding="utf-8")
    assert resolve_config(file, {}, {}) == config


def test_settings_file_says_what_a_setting_takes() -> None:
    lines = settings_toml(Config()).splitlines()
    assert 'kind = "surrogate"  # one of ufo, mean, surrogate' in lines
    assert "lr = 0.0001  # a number, above 0" in lines
    assert "keep = 0.9  # a number, above 0, at most 1" in lines


def test_result_survives_a_round_trip_through_plain_values() -> None:
    config = resolve_config(None, {}, {"ltu.steps": 3})
    flat = {f"{section}.{key}": value for section, part in config.to_dict().items() for key, value in part.items()}
    assert resolve_config(None, {}, flat) == config


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[lut]\nsteps = 1\n", ("[lut]", "[ltu]")),
        ("[ltu]\nstep = 1\n", ("step", "steps")),
        ("ltu = 5\n", ("ltu = 5", "write [ltu]")),
        ('[ltu]\nsteps = "50"\n', ("[ltu] steps", "'50'", "whole number", str(LtuConfig().steps))),
        ("[ltu]\nsteps = 50.0\n", ("50.0", "whole number")),
        ("[ltu]\nsteps = true\n", ("True", "whole number")),
        ("[ltu]\nlr = [1]\n", ("[1]", "a number")),
        ("[ltu]\nlr = 1" + "0" * 400 + "\n", ("lr", "a number")),
        ("[ltu]\nlayers = 3\n", ("3", "a text")),
        ("[ltu]\nsteps = -5\n", ("steps = -5", "at least 1")),
        ("[ltu\nsteps = 1\n", ("not valid TOML", "line 1")),
        (b"\xff\xfe\x00", ("no text file",)),
    ],
)
def test_bad_toml_is_refused_in_one_line(tmp_path: Path, content: str | bytes, expected: tuple[str, ...]) -> None:
    message = refusal(written(tmp_path, content), {}, {})
    assert str(tmp_path / "settings.toml") in message
    assert "\n" not in message
    assert all(part in message for part in expected), message


def test_missing_toml_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "absent.toml", {}, {})


def test_folder_as_toml_is_refused(tmp_path: Path) -> None:
    assert "directory" in refusal(tmp_path, {}, {})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("GUIDE_FAST_LTU_STEP", "1", "GUIDE_FAST_LTU_STEPS"),
        ("GUIDE_FAST_OFLINE", "1", "GUIDE_FAST_OFFLINE"),
        ("GUIDE_FAST_LTU_STEPS", "many", "whole number"),
        ("GUIDE_FAST_LTU_STEPS", "", "whole number"),
        ("GUIDE_FAST_LTU_LR", "fast", "a number"),
    ],
)
def test_bad_variable_is_named(name: str, value: str, expected: str) -> None:
    message = refusal(None, {name: value}, {})
    assert name in message
    assert expected in message


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ltu.steps", -5, "at least 1"),
        ("ltu.steps", 0, "at least 1"),
        ("ltu.steps", 2**63, "at most 9223372036854775807"),
        ("ltu.steps", 2.5, "whole number"),
        ("ltu.lr", 0, "above 0"),
        ("ltu.lr", -1e-4, "above 0"),
        ("ltu.lr", float("nan"), "finite"),
        ("ltu.lr", "inf", "finite"),
        ("ltu.radius", -0.1, "at least 0"),
        ("ltu.seed", -1, "at least 0"),
        ("ltu.layers", " ", "empty"),
        ("evaluate.radius", -1.0, "at least 0"),
        ("evaluate.bystanders", 0, "at least 1"),
        ("evaluate.stranger_pairs", 1, "at least 2"),
        ("target.kind", "nobody", "ufo, mean"),
        ("target.d", 0.0, "above 0"),
        ("target.push", 0.5, "at least 1"),
        ("invert.min_similarity", 1.5, "at most 1"),
        ("align.min_score", 2.0, "at most 1"),
    ],
)
def test_value_out_of_range_is_refused_with_the_way_out(name: str, value: Any, expected: str) -> None:
    message = refusal(None, {}, {name: value})
    assert name in message
    assert str(value).strip() in message
    assert expected in message


@pytest.mark.parametrize(("name", "nearest"), [("ltu.stepps", "ltu.steps"), ("steps", "ltu.steps"), ("lr", "ltu.lr")])
def test_unknown_override_names_the_nearest(name: str, nearest: str) -> None:
    assert nearest in refusal(None, {}, {name: 1})


def test_limits_that_exclude_every_photo_are_refused() -> None:
    message = refusal(None, {}, {"align.min_image_px": 900, "align.max_image_px": 800})
    assert "900" in message
    assert "800" in message


def test_config_built_in_python_is_checked_alike() -> None:
    with pytest.raises(UsageError, match=r"ltu\.steps = -1"):
        check_config(Config(ltu=LtuConfig(steps=-1)))
    with pytest.raises(UsageError, match=r"ltu\.steps = True"):
        check_config(Config(ltu=LtuConfig(steps=True)))


def test_every_setting_has_a_type_that_sources_can_give() -> None:
    hints = {field.type for section in vars(Config()).values() for field in dataclasses.fields(section)}
    assert hints <= {"int", "float", "str", "bool"}


@pytest.mark.parametrize(("said", "meant"), [("on", "on"), ("true", "on"), ("False", "off"), ("auto", "auto")])
def test_switch_is_understood_as_true_or_false_too(tmp_path: Path, said: str, meant: str) -> None:
    assert resolve_config(None, {}, {"ltu.cuda_graph": said}).ltu.cuda_graph == meant
    if said.lower() in ("true", "false"):
        toml = written(tmp_path, f"[ltu]\ncuda_graph = {said.lower()}\n")
        assert resolve_config(toml, {}, {}).ltu.cuda_graph == meant


@pytest.mark.parametrize("name", ["ltu.cuda_graph", "ltu.precision", "ltu.schedule", "ltu.preserve"])
def test_unknown_choice_is_refused_with_the_known_ones(name: str) -> None:
    assert "choose one of " in refusal(None, {}, {name: "maybe"})


def test_every_switch_is_listed_with_what_it_takes() -> None:
    lines = settings_toml(Config()).splitlines()
    for switch in ("batched", "cached_target", "banked", "frozen", "restrict_backward", "channels_last", "fused_adam"):
        assert f"{switch} = true  # true or false" in lines
    assert "compiled = false  # true or false" in lines
    assert 'cuda_graph = "auto"  # one of auto, on, off' in lines
    assert 'identity_stream = "auto"  # one of auto, on, off' in lines
    assert 'precision = "auto"  # one of auto, fp32, half' in lines


def test_every_variable_that_the_code_reads_is_known_as_no_setting() -> None:
    root = Path(__file__).resolve().parents[1]
    patterns = ("kernels/**/*.py", "csrc/**/*.cpp", "guide_fast/*.py", "setup.py")
    sources = [file for pattern in patterns for file in root.glob(pattern)]
    quoted = {name for file in sources for name in re.findall(r'"(GUIDE_FAST_[A-Z_]+[A-Z])"', file.read_text("utf-8"))}
    assert "GUIDE_FAST_WINOGRAD" in quoted
    assert quoted <= NOT_SETTINGS
