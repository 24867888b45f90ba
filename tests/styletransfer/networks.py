"""Small networks with random weights, in files as the real ones are."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from musicon.styletransfer.decoder import Decoder
from musicon.styletransfer.encoder import Encoder, random_state

WIDTHS = (4, 6, 8, 10, 12)


def write_networks(folder: Path, depth: str = "relu3_1", *, reflects: bool = True,
                   seed: int = 0) -> dict[str, str]:
    """An encoder and its untrained decoder; the settings that name them."""
    state = random_state(seed, WIDTHS)
    if reflects:
        state |= {"preprocess.weight": 2 * torch.eye(3)[..., None, None],
                  "preprocess.bias": torch.full((3,), -1.0)}
    encoder, decoder = folder / "encoder.safetensors", folder / "decoder.safetensors"
    save_file(state, encoder)
    mirrored = Decoder.mirror(Encoder(state, depth=depth), seed + 1).state()
    # Halfway between black and white, so that little is cut off at either.
    mirrored["conv1_1.weight"] *= 0.1
    mirrored["conv1_1.bias"] += 0.5
    save_file({key: value.contiguous() for key, value in mirrored.items()}, decoder)
    return {"encoder": str(encoder), "decoder": str(decoder)}
