"""An encoder that was brought and fits the generator starts its inversions, from the file to the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import PHOTO_CONFIG, forget, stop
from stopping import generator as generator  # fixtures
from stopping import photo as photo
from stopping import stand_ins as stand_ins
from tiny import person, seeded
from torch import Tensor

from guide_fast import _networks, brought, pipeline
from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models.encoders import Encoder
from guide_fast.models.mobile_stylegan import MobileStyleGAN

NAME = "recalling"
pytestmark = pytest.mark.usefixtures("stand_ins")


class Recalling(Encoder):
    """Answers with the latent in its file, whatever it is shown."""

    name, family, resolution = NAME, "mobilestylegan", 16

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        super().__init__(tensors["offset"])
        self.num_ws, self.w_dim = config["num_ws"], config["w_dim"]
        self.settle()

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), self.num_ws, self.w_dim)


def convert(name: str, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return {"offset": state["code"]}, {"num_ws": state["code"].shape[0], "w_dim": state["code"].shape[1]}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """One kind of encoder, for the tiny generator."""
    mine = brought.Brought(NAME, "a start", "any code", 1, "brought by you: free", f"{__name__}:convert")
    monkeypatch.setattr(brought, "_BROUGHT", (*brought.list_brought(), mine))
    monkeypatch.setattr(_networks, "BROUGHT_ENCODERS", {NAME: "mobilestylegan"})
    monkeypatch.setattr(_networks, "load_encoder", lambda name: Recalling(*brought.load(name)))


def bring(code: Tensor, folder: Path) -> Path:
    torch.save({"code": code}, folder / "code.pt")
    served = brought.add(NAME, [folder / "code.pt"]).path
    assert served is not None
    return served


def nearly(generator: MobileStyleGAN, seed: int = 1) -> Tensor:
    """Whom the photo shows, with other noise in each slot."""
    w = person(generator, 5)
    return w + 0.2 * w.std() * seeded(*w.shape, seed=seed)


def cached(folder: Path) -> list[str]:
    return [file.name for file in (folder / "home").rglob("samples-*")]


def test_inversion_starts_at_the_code_and_betters_it(generator: MobileStyleGAN, photo: Path, tmp_path: Path) -> None:
    bring(nearly(generator), tmp_path)
    latent = pipeline.invert_photo(generator, photo, aligned=True, config=PHOTO_CONFIG)
    assert latent.notes["encoder"] == NAME
    assert latent.notes["loss"] < latent.notes["curve"][0]
    assert latent.notes["steps"] == PHOTO_CONFIG.invert.steps_w_plus
    assert not cached(tmp_path)  # nobody rendered samples


def test_without_an_encoder_samples_are_the_start(generator: MobileStyleGAN, photo: Path, tmp_path: Path) -> None:
    latent = pipeline.invert_photo(generator, photo, aligned=True, config=PHOTO_CONFIG)
    assert "encoder" not in latent.notes
    assert cached(tmp_path)


@pytest.mark.parametrize("change", ["slots", "width", "family"])
def test_encoder_of_another_kind_is_passed_over(
    generator: MobileStyleGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    code = nearly(generator)
    bring({"slots": code[:-1], "width": code[:, :-1], "family": code}[change], tmp_path)
    assert (_networks.fitting_encoder(generator) == NAME) == (change == "family")
    if change == "family":
        monkeypatch.setattr(_networks, "BROUGHT_ENCODERS", {NAME: "stylegan2"})
    assert _networks.fitting_encoder(generator) is None is _networks.encoder_for(generator, _networks.loss_networks())


def test_run_begun_with_another_encoder_is_not_resumed(generator: MobileStyleGAN, photo: Path, tmp_path: Path) -> None:
    bring(nearly(generator), tmp_path)
    stop(generator, photo, tmp_path / "run", "invert", 2)
    bring(nearly(generator, seed=2), tmp_path)
    with pytest.raises(UsageError, match="another encoder"):
        forget(generator, photo, tmp_path / "run", resume=True)
    bring(nearly(generator), tmp_path)
    assert forget(generator, photo, tmp_path / "run", resume=True).source.notes["encoder"] == NAME


def test_changed_encoder_is_refused(generator: MobileStyleGAN, photo: Path, tmp_path: Path) -> None:
    served = bring(nearly(generator), tmp_path)
    content = bytearray(served.read_bytes())
    content[-1] ^= 1
    served.write_bytes(content)
    with pytest.raises(IntegrityError, match="has other bytes than were added"):
        pipeline.invert_photo(generator, photo, aligned=True, config=PHOTO_CONFIG)


def test_report_names_the_encoders_licence(generator: MobileStyleGAN, photo: Path, tmp_path: Path) -> None:
    bring(nearly(generator), tmp_path)
    forget(generator, photo, tmp_path / "run")
    assert f"{NAME}: brought by you: free." in (tmp_path / "run" / "report.html").read_text()
