r"""Train AdaIN's decoder for an encoder, on your own photos and paintings.

    python tools/build_bank.py train-decoder --encoder FILE \
        --content MANIFEST --styles MANIFEST --out FOLDER

FOLDER/decoder.safetensors then belongs to that encoder. The same command goes on where a run was
stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from musicon.datasets.command import DONE
from musicon.styletransfer.verbs.train_style import add_training_arguments, fit_settings, lasting

DECODER = "decoder.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    add = parser.add_argument
    add("--styles", type=Path, required=True, metavar="MANIFEST",
        help="paintings; those of the training split are used")
    add("--depth", default=None, metavar="LAYER",
        help="relu1_1 ... relu5_1 (default: relu4_1, or the deepest that the encoder has)")
    add("--style-weight", type=float, default=10.0, help="against the content's 1 (default: 10)")
    add_training_arguments(parser, steps=20000, learning_rate=1e-4)


def run(options: argparse.Namespace) -> int:
    """Train, write the decoder and a preview, print the losses."""
    import torch

    from musicon.styletransfer import encoder as encoders
    from musicon.styletransfer import training
    from musicon.styletransfer.decoder import Decoder
    from musicon.styletransfer.methods.adain import AdaIN
    from musicon.styletransfer.methods.base import MethodSettings
    from musicon.styletransfer.objectives import DecoderLosses
    from musicon.styletransfer.weights import LAYERS

    cfg = fit_settings(options)
    device = training.pick_device(options.device)
    photos = training.Pictures(options.content, cfg.image_size)
    paintings = training.Pictures(options.styles, cfg.image_size)
    encoder = encoders.build(options.encoder, depth=options.depth)
    if options.depth is None and encoder.depth == LAYERS[4]:
        encoder = encoders.build(options.encoder, depth=LAYERS[3])
    encoder.to(device)
    decoder = Decoder.mirror(encoder, cfg.seed).to(device)
    objective = DecoderLosses(decoder, encoder, style_weight=options.style_weight)

    def losses(step: int) -> tuple[dict[str, torch.Tensor], list[Path]]:
        content, files = photos.batch(cfg.batch_size, cfg.seed, step)
        style, more = paintings.batch(cfg.batch_size, cfg.seed, step, 1)
        return objective(content.to(device), style.to(device)), files + more

    settings = {**lasting(cfg), "style_weight": options.style_weight, "depth": encoder.depth,
                "content": photos.digest, "styles": paintings.digest,
                "encoder": training.state_digest(encoder)}
    last = training.fit(decoder, losses, cfg, options.out, settings, fresh=options.fresh,
                        quiet=options.quiet)
    training.write_network(options.out / DECODER, decoder.state(), settings)
    shown, styles = photos.batch(4, cfg.seed, 0)[0], paintings.batch(4, cfg.seed, 0)[0]
    made = AdaIN(encoder, decoder, MethodSettings())(shown, styles).cpu()
    training.write_preview(options.out / training.PREVIEW, [list(shown), list(styles), list(made)])
    print(f"wrote {options.out / DECODER}, {training.PREVIEW} and {training.LOSSES}: "
          + ", ".join(f"{name} {value:.3g}" for name, value in last.items()))
    return DONE
