"""Stages that another run has trained alike: taken over from there, not trained again.

The variants of a grid mostly differ in a late stage or in one part of a stage; up to there their
runs are the same, byte for byte where device and versions are (they are not compared).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from musicon.datasets.files import UserError, locked, sha256
from musicon.detect import adaptation, detectors
from musicon.detect.checkpoints import ModelFolderError, read_lineage
from musicon.detect.config import Config, differences
from musicon.detect.logs import RunFolder
from musicon.detect.model_files import WEIGHTS
from musicon.detect.stage_checks import (
    data_of,
    fingerprint,
    manifest_file,
    untrained_differences,
)
from musicon.detect.storage import read_checkpoint

log = logging.getLogger(__name__)


def take_over(config: Config, names: Sequence[str], lenders: Sequence[Path]) -> None:
    """Copy stages that ``train`` would repeat into a run that has not begun them.

    Training then decides as it does with a run's own folder: a stage with the same settings is
    done; with another rule of fusion its models are kept and the threshold is set anew; with other
    settings of the detector's training the classifier is kept.

    Stages that the run does not train, but starts from, are taken as they are: what differs in
    their rule of fusion stays with them.

    Args:
        config: Settings of the run.
        names: The stages that it trains, parents first.
        lenders: Run folders to copy from, the first that fits best is taken; unfinished stages
            and folders that are not there lend nothing.

    Raises:
        UserError: What the run starts from is there, but of other settings or data; or a lender
            is being written.
    """
    config = config.model_copy(update={"detector": detectors.resolved(config.detector)})
    chain = with_ancestors(config, names)
    config = adaptation.resolved(config, chain)
    for name in chain:
        if not all(manifest_file(path).is_file() for _, path in data_of(config, name)):
            return  # training says how to make what is missing
        parent = config.stages[name].parent
        weights = None if parent is None else config.output / parent / "model" / WEIGHTS
        if weights is not None and not weights.is_file():
            return
        wanted = fingerprint(config, name, 1, None if weights is None else sha256(weights))
        own = RunFolder(config.output / name)
        if own.root.exists():
            changed = _changed(own, wanted)
            if name not in names and (changed is None or changed - {"fusion"}):
                raise UserError(f"{own.root}: of other settings or data than stage {names[0]} is "
                                f"now to start from; remove {config.output} and run again")
        else:
            offers = [(changed, lender) for lender in lenders
                      if (changed := _changed(RunFolder(lender / name), wanted)) is not None
                      and (not untrained_differences(RunFolder(lender / name).model,
                                                     config.fusion) if name in names
                           else changed <= {"fusion"})]
            if not offers:
                return
            changed, lender = min(offers, key=lambda offer: len(offer[0]))
            _copy(RunFolder(lender / name), own, without_detector="detector" in changed)
            log.info("stage %s: taken over from %s%s", name, lender,
                     f", but for {', '.join(sorted(changed))}" if changed else "")
        if changed is None or changed - {"fusion"}:
            return  # its weights change, and with them what its children start from


def with_ancestors(config: Config, names: Sequence[str]) -> list[str]:
    """The stages and all that they start from, parents first."""
    chain: dict[str, None] = {}
    for name in names:
        line = [name]
        while (parent := config.stages[line[-1]].parent) is not None:
            line.append(parent)
        chain |= dict.fromkeys(reversed(line))
    return list(chain)


def _changed(run: RunFolder, wanted: Mapping[str, Any]) -> set[str] | None:
    """What of a finished stage training would repeat: of ``fusion`` and the two models.

    None where all is, or nothing is finished.
    """
    try:
        trained = read_lineage(run.model).get("fingerprint", {})
    except ModelFolderError:
        return None
    changed = {line.partition(":")[0] for line in differences(trained, wanted)}
    parts = {part: {key for key in changed if key.startswith(prefix)} for part, prefix in (
        ("fusion", "fusion."), ("classifier", "fits.classifier."), ("detector", "fits.detector."))}
    if changed - set().union(*parts.values()) or parts["classifier"]:
        return None  # a detector starts from the classifier: nothing of its training stays
    return {part for part, keys in parts.items() if keys}


def _copy(source: RunFolder, target: RunFolder, *, without_detector: bool) -> None:
    """Copy what training goes on from and ends with, whole or not at all.

    A run that is unfinished there, of whatever settings, is not gone on with here.
    """
    part = target.root.with_name(f".{target.root.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with locked(source.root / ".lock", UserError(
            f"{source.root}: another training is writing here; wait for it, and run again")):
        for folder in (source.model, source.checkpoints, source.cache, source.logs):
            if folder.is_dir():
                shutil.copytree(folder, part / folder.name)
    for file in (part / source.checkpoints.name).glob("*.ckpt"):
        if not read_checkpoint(file)["progress"]["finished"] \
                or (without_detector and file.stem == "detector"):
            file.unlink()
    part.rename(target.root)
