"""Networks that are trained here: kept as safetensors, verified whenever they are read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guide_fast.assets import AssetStatus, home
from guide_fast.config import EncoderConfig
from guide_fast.errors import GuideFastError, IntegrityError, UsageError
from guide_fast.progress import Progress, silent

if TYPE_CHECKING:
    from guide_fast.models.encoders.small import SmallEncoder
    from guide_fast.models.generator import Generator
    from guide_fast.models.identity import IdentityNetwork
    from guide_fast.models.perceptual import PerceptualNetwork

SMALL_ENCODER = "small-encoder"
FORMAT = 1  # raise it when the network changes: what was built before then has to be built anew
WAY = f"run `guide-fast assets build {SMALL_ENCODER}`"
_KIND = "small encoder"


def encoder_path(generator: Generator) -> Path:
    """Where the small encoder of `generator` is kept, built or not.

    It belongs to what no delta touches, the mapping from z to W with the mean latent, so that one encoder serves a
    generator before and after a forgetting.
    """
    from guide_fast.artifacts import tensors_sha256

    touched = {name for layer in generator.layers for name in generator.layer_parameters(layer)}
    state = generator.state_dict()
    kept = {name: value for name, value in state.items() if name not in touched and not name.startswith("heads.")}
    return _folder() / f"{SMALL_ENCODER}-{tensors_sha256(kept)[:16]}.safetensors"


def build_encoder(
    generator: Generator,
    *,
    identity: IdentityNetwork,
    perceptual: PerceptualNetwork,
    config: EncoderConfig,
    progress: Progress = silent,
) -> Path:
    """Train the small encoder of `generator`, keep it in place of an earlier one; returns its file.

    Raises what `invert.encoder_training.train_encoder` raises, GuideFastError when the disk refuses.
    """
    from guide_fast.artifacts import tensors_sha256, write_safetensors
    from guide_fast.invert.encoder_training import train_encoder

    trained = train_encoder(generator, identity=identity, perceptual=perceptual, config=config, progress=progress)
    metadata = {
        "format": FORMAT,
        "generator": generator.name,
        "config": trained.config | {"name": SMALL_ENCODER},
        "training": vars(config),
        "networks": _networks(identity, perceptual),
        "error": trained.error,
        "sha256": tensors_sha256(trained.tensors),
    }
    path = encoder_path(generator)
    write_safetensors(path, trained.tensors, _KIND, metadata)
    return path


def encoder_metadata(path: Path) -> dict[str, Any]:
    """What was noted when the encoder in `path` was built: generator, training, error, sha256 among others."""
    from guide_fast.artifacts import read_metadata

    return read_metadata(path, _KIND)


def load_encoder(path: Path, *, identity: IdentityNetwork, perceptual: PerceptualNetwork) -> SmallEncoder:
    """The encoder in `path`, reading through the two networks; frozen, on their device.

    Raises IntegrityError for damaged bytes, UsageError when it was built by another version or for other networks.
    """
    from guide_fast.models.encoders.small import SmallEncoder

    tensors, metadata = _read(path)
    if metadata["format"] != FORMAT or metadata["networks"] != _networks(identity, perceptual):
        raise UsageError(f"{path} was trained by another version, with other networks; {WAY} --force")
    encoder = SmallEncoder(tensors, metadata["config"], identity=identity, perceptual=perceptual)
    return encoder.to(next(perceptual.parameters()).device)


def list_built(*, missing: bool = False) -> list[AssetStatus]:
    """Every encoder that was built here, its bytes compared with the hash recorded then.

    With `missing` one entry says so when there is none.
    """
    found = []
    for path in sorted(_folder().glob(f"{SMALL_ENCODER}-*.safetensors")):
        try:
            metadata = _read(path)[1]
            detail = f"of {metadata['generator']}, sha256 {metadata['sha256'][:12]} as recorded"
            found.append(AssetStatus(SMALL_ENCODER, "ok", path, detail))
        except GuideFastError as error:
            found.append(AssetStatus(SMALL_ENCODER, "tampered", path, str(error)))
    if missing and not found:
        return [AssetStatus(SMALL_ENCODER, "missing", _folder(), f"not built; {WAY}")]
    return found


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from guide_fast.artifacts import read_safetensors, tensors_sha256

    tensors, metadata = read_safetensors(path, _KIND)
    if metadata.get("sha256") != tensors_sha256(tensors):
        raise IntegrityError(f"the bytes of {path} are damaged; {WAY} --force to train it again")
    return tensors, metadata


def _networks(identity: IdentityNetwork, perceptual: PerceptualNetwork) -> dict[str, str]:
    from guide_fast.artifacts import weights_sha256

    text = json.dumps([[network.name, weights_sha256(network)] for network in (identity, perceptual)])
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "names": f"{identity.name}, {perceptual.name}"}


def _folder() -> Path:
    return home() / "built"
