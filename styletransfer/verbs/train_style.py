"""Train a feed-forward network for one style, on your own photos.

    python tools/build_bank.py train-style --style FILE --content MANIFEST --out FOLDER

FOLDER/network.safetensors is then a style for the method johnson. The same command goes on where a
run was stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from musicon.datasets.command import DONE, count

if TYPE_CHECKING:
    from musicon.styletransfer.training import Fit

NETWORK = "network.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    add = parser.add_argument
    add("--style", type=Path, required=True, metavar="FILE", help="the painting")
    add("--style-size", type=count, default=384, metavar="PIXELS",
        help="its longer side as the network sees it: the size of its strokes (default: 384)")
    add("--style-weight", type=float, default=10.0, help="against the content's 1 (default: 10)")
    add_training_arguments(parser, steps=2000, learning_rate=1e-3)


def add_training_arguments(parser: argparse.ArgumentParser, *, steps: int,
                           learning_rate: float) -> None:
    """The options that both kinds of training have."""
    add = parser.add_argument
    add("--content", type=Path, required=True, metavar="MANIFEST",
        help="photos; those of the training split are used")
    add("--out", type=Path, required=True, metavar="FOLDER", help="where the weights go")
    add("--encoder", default="auto", metavar="auto|torchvision|random|FILE",
        help="VGG19 weights (default: auto, torchvision's)")
    add("--steps", type=count, default=steps, help=f"batches (default: {steps})")
    add("--batch-size", type=count, default=4, help="images a batch (default: 4)")
    add("--image-size", type=count, default=256, help="side of the crops, pixels (default: 256)")
    add("--learning-rate", type=float, default=learning_rate,
        help=f"of Adam (default: {learning_rate:g})")
    add("--seed", type=int, default=0, help="of the first weights and the crops (default: 0)")
    add("--checkpoint-every", type=count, default=50, metavar="STEPS",
        help="how much a kill may cost (default: 50)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--fresh", action="store_true", help="forget an earlier run in FOLDER")
    add("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> int:
    """Train, write the network and a preview, print the losses."""
    import torch

    from musicon.datasets.files import sha256
    from musicon.datasets.images import decode_reduced
    from musicon.styletransfer import encoder as encoders
    from musicon.styletransfer import training
    from musicon.styletransfer.methods.johnson import STRIDE, Network
    from musicon.styletransfer.objectives import PerceptualLosses
    from musicon.styletransfer.weights import StyleError

    if options.image_size % STRIDE:
        raise StyleError(f"--image-size {options.image_size}: write a multiple of {STRIDE}")
    cfg = fit_settings(options)
    device = training.pick_device(options.device)
    pictures = training.Pictures(options.content, cfg.image_size)
    encoder = encoders.build(options.encoder, pooling="average").to(device)
    pixels = decode_reduced(options.style, options.style_size)[0]
    style = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().to(device) / 255
    network = Network(cfg.seed).to(device)
    objective = PerceptualLosses(network, encoder, style, style_weight=options.style_weight)

    def losses(step: int) -> tuple[dict[str, torch.Tensor], list[Path]]:
        content, files = pictures.batch(cfg.batch_size, cfg.seed, step)
        return objective(content.to(device)), files

    settings = {**lasting(cfg), "style": sha256(options.style), "style_size": options.style_size,
                "style_weight": options.style_weight, "content": pictures.digest,
                "encoder": training.state_digest(encoder)}
    last = training.fit(network, losses, cfg, options.out, settings, fresh=options.fresh,
                        quiet=options.quiet)
    training.write_network(options.out / NETWORK, network.state_dict(), settings)
    with torch.no_grad():
        shown = pictures.batch(4, cfg.seed, 0)[0]
        made = network(shown.to(device)).cpu()
    training.write_preview(options.out / training.PREVIEW, [list(shown), list(made)])
    print(f"wrote {options.out / NETWORK}, {training.PREVIEW} and {training.LOSSES}: "
          + ", ".join(f"{name} {value:.3g}" for name, value in last.items()))
    return DONE


def fit_settings(options: argparse.Namespace) -> Fit:
    """The options as the loop takes them."""
    from musicon.styletransfer import training

    return training.Fit(options.steps, options.batch_size, options.image_size,
                        options.learning_rate, options.seed, options.checkpoint_every)


def lasting(cfg: Fit) -> dict[str, object]:
    """What a run cannot go on without; it may go on for more steps."""
    return {key: value for key, value in vars(cfg).items()
            if key not in ("steps", "checkpoint_every")}
