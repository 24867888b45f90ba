"""Make a style bank: give each picture of a data set the look of several paintings.

    python tools/build_bank.py make --content data/mimo --styles data/styles --out data/bank
        --set encoder=vgg.safetensors decoder=decoder.safetensors

The same command goes on where it stopped, and redoes only what a changed setting touches. On n
machines, run it with --shard 1/n ... --shard n/n, bring the folders together, and run it once
without --shard: it finds all pictures there and writes the manifest.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from musicon.datasets import command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    add = parser.add_argument
    add("--content", type=Path, nargs="+", default=[], metavar="MANIFEST",
        help="pictures to style, with their boxes and labels")
    add("--styles", type=Path, metavar="FOLDER", help="what the verb styles made")
    add("--out", type=Path, required=True, metavar="FOLDER", help="the bank")
    add("--per-image", type=command.count, default=4, metavar="K",
        help="styles of each picture (default: 4)")
    add("--method", default="adain", help="adain, gatys, johnson (default: adain)")
    add("--set", nargs="+", default=[], dest="settings", type=_setting, metavar="KEY=VALUE",
        help="settings of the method: encoder=FILE decoder=FILE preserve_colour=true ...")
    add("--alpha", type=command.share, nargs="+", default=[1.0], metavar="A",
        help="strength from 0 to 1, or two numbers to draw it between (default: 1)")
    add("--size", type=command.count, default=512,
        help="longer side in pixels at most; nothing is enlarged (default: 512)")
    add("--format", choices=("jpg", "webp"), default="jpg", help="default: jpg")
    add("--quality", type=_quality, default=90, help="of JPEG or WebP (default: 90)")
    add("--composites", type=command.count, default=0, metavar="N",
        help="also compose N scenes of the content's cut-outs and style them as wholes")
    add("--grounds", type=Path, metavar="MANIFEST",
        help="pictures without instruments, which scenes are composed in")
    add("--split", nargs="+", choices=("train", "val"), default=["train"],
        help="which part of the content (default: train)")
    add("--seed", type=int, default=0, help="of the draw of styles (default: 0)")
    add("--shard", type=_shard, default=(1, 1), metavar="I/N", help="make the I-th of N shares")
    add("--workers", type=command.count, default=0, metavar="N",
        help="processes on each device (default: one a core, 4 a GPU)")
    add("--device", default="auto", help="auto (all GPUs, or cpu), cpu, cuda:0,cuda:1")
    add("--precision", choices=("auto", "float32", "bfloat16", "float16"), default="auto",
        help="default: float16 on GPUs, float32 on CPUs")
    add("--engine", choices=("processes", "ray"), default="processes",
        help="ray: the running Ray cluster, whose machines all see these folders")
    add("--check", action="store_true", help="only compare the pictures with their check sums")
    add("--quiet", action="store_true", help="no progress bars, no summary")


def run(options: argparse.Namespace) -> int:
    """Make or check it; 1 when contents could not be read or pictures are damaged."""
    from musicon.styletransfer import bank, bank_files
    from musicon.styletransfer.weights import StyleError

    if options.check:
        faults = bank_files.check_bank(options.out, options.quiet)
        for name, fault in faults[:20]:
            print(f"{fault}: {name}")
        if faults:
            print(f"{command.counted(len(faults), 'picture')} missing or changed: run make again "
                  "without --check to make them anew")
        elif not options.quiet:
            print("every picture is as it was made")
        return command.DONE_WITH_REJECTS if faults else command.DONE
    if not options.content:
        raise StyleError("--content: give the manifest of the pictures that are to be styled")
    if len(options.alpha) > 2:
        raise StyleError("--alpha takes one number, or two to draw between")
    made = bank.make_bank(bank.BankOptions(
        contents=tuple(options.content), styles=options.styles, out=options.out,
        per_image=options.per_image, method=options.method, settings=dict(options.settings),
        alpha=(min(options.alpha), max(options.alpha)), size=options.size, format=options.format,
        quality=options.quality, seed=options.seed, composites=options.composites,
        grounds=options.grounds, splits=tuple(options.split), shard=options.shard,
        workers=options.workers, devices=devices(options.device),
        precision=options.precision, engine=options.engine, quiet=options.quiet))
    if not options.quiet:
        print("\n".join(summary(made, options)))
    return command.DONE_WITH_REJECTS if made.rejects else command.DONE


def summary(made: object, options: argparse.Namespace) -> list[str]:
    """What came of it."""
    from musicon.styletransfer.bank import BankMade

    if not isinstance(made, BankMade):
        raise TypeError(f"not a bank: {made!r}")
    speed = f", {made.made / made.seconds:.1f} a second" if made.made and made.seconds else ""
    lines = [f"made {command.counted(made.made, 'picture')} in {made.seconds:,.0f} s{speed}; "
             f"{made.kept:,} were there"]
    if made.rejects:
        file, reason = made.rejects.rows[0]
        lines.append(f"left out {command.counted(len(made.rejects), 'content')}, the first {file}: "
                     f"{reason}")
    if made.manifest is None:
        share, of = options.shard
        lines.append(f"share {share} of {of} is done; when all are, run the same command without "
                     "--shard to write the manifest")
    else:
        boxes = sum(len(record.boxes) for record in made.manifest.images)
        lines.append(f"wrote {made.manifest.root}: {len(made.manifest):,} pictures, "
                     f"{command.counted(boxes, 'box', 'boxes')}")
    return lines


def devices(text: str) -> tuple[str, ...]:
    """The devices meant by ``auto`` or a list."""
    if text != "auto":
        return tuple(text.split(","))
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return tuple(f"cuda:{number}" for number in range(count)) or ("cpu",)


def _setting(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is no setting; write KEY=VALUE")
    return key, value


def _quality(text: str) -> int:
    value = command.count(text)
    if value > 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 100")
    return value


def _shard(text: str) -> tuple[int, int]:
    parts = re.fullmatch(r"(\d+)/(\d+)", text)
    if not parts or not 1 <= int(parts[1]) <= int(parts[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no share; write 1/4, 2/4, 3/4, 4/4")
    return int(parts[1]), int(parts[2])
