"""What must hold before a stage is trained, and how to make it so."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from musicon.datasets.files import locked, sha256
from musicon.datasets.records import MANIFEST_NAME, Manifest, UserError
from musicon.detect import detectors
from musicon.detect.checkpoints import ModelFolderError, read_lineage, read_metrics
from musicon.detect.config import Config, FusionConfig, differences, load
from musicon.detect.logs import RunFolder
from musicon.detect.model_files import CONFIG, restored, sweep

log = logging.getLogger(__name__)

SOURCES = {"mimo": "folder FOLDER_OF_PHOTOS", "google": "folder FOLDER_OF_PAINTINGS",
           "cytomine": "coco ANNOTATIONS.json"}
"""Stage -> what ``prepare_data.py`` is given to read the stage's kind of data."""
SHAPE = {"classifier": ("backbone",),
         "detector": ("engine", "config", "family", "fpn_channels", "anchor_sizes",
                      "aspect_ratios", "class_agnostic")}
"""Settings that a stage's weights are only of use with."""
NOT_DECISIVE = ("checkpoint_every",)
"""Settings of a fit that change nothing about its result."""


class StageError(UserError):
    """A stage that cannot be trained; the message gives the command that helps."""


def data_of(config: Config, name: str) -> Iterator[tuple[str, Path]]:
    """The manifests that a stage reads, each with the setting that names it."""
    stage = config.stages[name]
    yield "manifest", stage.manifest
    for key in ("backgrounds", "cutouts", "rehearsal"):
        for i, path in enumerate(getattr(stage, key)):
            yield f"{key}.{i}", path
    if stage.bank is not None:
        yield "bank", stage.bank.path
    for i, method in enumerate(stage.adaptation):
        yield from ((f"adaptation.{i}.{key}", path) for key, path in method.manifests())


def manifest_file(path: Path) -> Path:
    """The JSON file of a manifest given by its file or folder."""
    return path / MANIFEST_NAME if path.is_dir() else path


def check_data(config: Config, name: str) -> None:
    """Refuse a stage whose data are missing or leave nothing to learn or validate.

    Raises:
        StageError: With the commands that make the data.
    """
    for key, path in data_of(config, name):
        if not manifest_file(path).is_file():
            without = (f"; or do without: --set stages.{name}.adaptation=null"
                       if key.startswith("adaptation.") else "")
            raise StageError(f"stage {name} reads {path} (stages.{name}.{key}), which is not "
                             f"there; make it with {_makers(key, path, name)}{without}")
    manifest = Manifest.read(config.stages[name].manifest)
    if not manifest.categories:
        raise StageError(f"{config.stages[name].manifest}: no categories, so there is nothing to "
                         "learn; prepare the data again from a source with class names")
    for split in ("train", "val"):
        if not manifest.select(split=split).images:
            raise StageError(f"{config.stages[name].manifest}: no image is in the split {split!r}; "
                             "prepare the data again with --split 70/10/20")
    for key, path in data_of(config, name):
        data = check_files(path)
        if data.images and not data.select(split="train").images:
            raise StageError(f"{path} (stages.{name}.{key}): none of its images ({len(data):,}) is "
                             "in the split 'train', so nothing can be learnt from it; prepare the "
                             "data again with --split 70/10/20")
    for setting in detectors.unused_settings(config.detector):
        whose = ("detector.config" if config.detector.config is not None else
                 f"the detector family {config.detector.family}")
        warn_once(f"detector.{setting} changes nothing: {whose} has its own; leave it out, or "
                  "choose another")


@cache
def warn_once(sentence: str) -> None:
    """A warning that would say nothing new the second time."""
    log.warning(sentence)


def check_files(path: Path) -> Manifest:
    """The manifest, whose images are all there: else it would be told hours later.

    Raises:
        StageError: Some are not.
    """
    manifest = Manifest.read(path)
    gone = [record.file_name for record in manifest.images if not manifest.path(record).exists()]
    if gone:
        raise StageError(f"{path}: {len(gone):,} of its {len(manifest):,} images are not there, "
                         f"such as {gone[0]}; put them back, or prepare the data again")
    return manifest


def _makers(key: str, path: Path, stage: str) -> str:
    """The commands that make a missing data set."""
    folder = path.parent if path.suffix == ".json" else path
    if key.endswith("bank"):
        return ("'python tools/build_bank.py styles --paintings PAINTINGS --out STYLES' and "
                f"'python tools/build_bank.py make --content data/{stage} --styles STYLES "
                f"--out {folder}'")
    domain = folder.name if folder.name in SOURCES else stage
    source = SOURCES.get(domain, "folder FOLDER")
    if key.startswith("backgrounds"):
        source = "folder FOLDER_OF_PAINTINGS --class negative"
    real = f"'python tools/prepare_data.py {source} --domain {domain} --out {folder}'"
    sample = (f"python tools/prepare_data.py atelier --out {folder.parent}"
              if folder.name in SOURCES else
              f"python tools/prepare_data.py atelier --domain {domain} --out {folder}")
    return f"{real}, or '{sample}' for the generated sample"


def check_parent(config: Config, name: str, command: Callable[[str], str]) -> None:
    """Refuse a stage whose parent is missing or of another shape.

    Raises:
        StageError: With the command that trains the parent.
    """
    parent = config.stages[name].parent
    if parent is None:
        return
    folder = restored(config.output / parent / "model")
    if not folder.is_dir():
        raise StageError(f"stage {name} starts from stage {parent}, which has no model in "
                         f"{folder}; train it with '{command(parent)}'")
    lineage = read_lineage(folder)
    if lineage.get("stage") != parent:
        raise StageError(f"stage {name} starts from stage {parent}, but {folder} holds stage "
                         f"{lineage.get('stage')!r}; train it with '{command(parent)} --fresh'")
    trained = lineage["fingerprint"]["models"]
    wanted = config.model_dump(mode="json")
    changed = [line for part, keys in SHAPE.items() for line in differences(
        {f"{part}.{key}": trained[part].get(key) for key in keys},
        {f"{part}.{key}": wanted[part].get(key) for key in keys})]
    if changed:
        raise StageError(f"stage {name} cannot start from {folder}: it was trained with other "
                         f"settings ({'; '.join(changed)}); train it again with "
                         f"'{command(parent)}', or restore the settings")


def fingerprint(config: Config, name: str, processes: int,
                parent_hash: str | None) -> dict[str, Any]:
    """Everything that a stage's result depends on, as plain values.

    Args:
        config: All settings.
        name: The stage.
        processes: Of the run, on all machines.
        parent_hash: Check sum of the parent's weights; None for a first stage.
    """
    settings = config.model_dump(mode="json")
    stage = settings["stages"][name]
    data = {key: sha256(manifest_file(path)) for key, path in data_of(config, name)}
    fusion = {key: value for key, value in settings["fusion"].items()
              if key not in ("slope", "shift", "threshold", "sure_share")}
    apart = {"classifier", "detector", "manifest", "backgrounds", "cutouts", "rehearsal",
             "bank", "adaptation"}
    extra = {} if stage["bank"] is None else {"bank": stage["bank"]["probability"]}
    if stage["adaptation"]:
        extra["adaptation"] = [
            {key: value for key, value in method.items() if key not in ("targets", "optional")}
            | {"bank": method["bank"] and method["bank"]["probability"]}
            for method in stage["adaptation"]]
    idle = NOT_DECISIVE if stage["parent"] else (*NOT_DECISIVE, "mined_share")
    return {
        "seed": settings["seed"], "precision": settings["precision"],
        "processes": processes, "data": data, "parent": parent_hash,
        "models": {"classifier": settings["classifier"], "detector": settings["detector"]},
        "stage": {**{key: value for key, value in stage.items() if key not in apart}, **extra},
        "fits": {part: {key: value for key, value in stage[part].items()
                        if key not in idle} for part in ("classifier", "detector")},
        "fusion": fusion,
    }


def fit_fingerprint(stage: Mapping[str, Any], part: str) -> dict[str, Any]:
    """What of a stage's fingerprint decides the training of its ``classifier`` or ``detector``."""
    settings, methods = dict(stage["stage"]), {}
    for i, method in enumerate(settings.pop("adaptation", [])):
        if part in method["models"]:
            methods[f"adaptation.{i}"] = {k: v for k, v in method.items() if k != "models"}
    if part == "classifier" and settings["composites"] is not None:
        settings["composites"] = {k: v for k, v in settings["composites"].items() if k != "share"}
    data = {key: value for key, value in stage["data"].items()
            if not key.startswith("adaptation.") or ".".join(key.split(".")[:2]) in methods}
    whole = {key: value for key, value in stage.items() if key not in ("models", "fits", "fusion")}
    return {**whole, "data": data, "stage": {**settings, **methods},
            "model": stage["models"][part], "fit": stage["fits"][part]}


def finished(folder: Path, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
    """The metrics of a model folder made with this fingerprint; None if it is another's."""
    if not folder.is_dir():
        return None
    try:
        lineage = read_lineage(folder)
        changed = differences(lineage.get("fingerprint", {}), fingerprint)
        if not changed:
            return read_metrics(folder)
        log.info(f"{folder}: settings or data have changed ({'; '.join(changed[:4])})"
                 "; training again")
    except ModelFolderError as error:
        log.info(f"{error}; training again")
    return None


def untrained_differences(folder: Path, fusion: FusionConfig) -> list[str]:
    """Settings that a model folder has otherwise, of those that a stage takes as they are.

    The threshold and the calibration are among them where no validation set them.
    """
    untuned = read_metrics(folder).get("validation") is None
    keys = ("sure_share", *(("threshold", "slope", "shift") if untuned else ()))
    before, now = ({f"fusion.{key}": getattr(rule, key) for key in keys}
                   for rule in (load(folder / CONFIG).fusion, fusion))
    return differences(before, now)


def forget(run: RunFolder) -> None:
    """Remove what a stage would go on from; its model is put aside as ``previous``."""
    for folder in (run.checkpoints, run.logs, run.cache):
        shutil.rmtree(folder, ignore_errors=True)
    if run.model.is_dir():
        shutil.rmtree(run.root / "previous", ignore_errors=True)
        run.model.rename(run.root / "previous")


@contextmanager
def alone(run: RunFolder, fabric: Fabric) -> Iterator[None]:
    """Hold the run folder's lock, which the system gives back even after a kill.

    Raises:
        StageError: Another training is using the folder.
    """
    if not fabric.is_global_zero:
        yield
        return
    with locked(run.root / ".lock", StageError(
            f"{run.root}: another training is writing here; wait for it, or give another folder "
            "with --output")):
        sweep(run.root)
        yield


def choose(config: Config, stage: str) -> tuple[str, ...]:
    """The stages meant by a name or ``all``, in training order.

    Raises:
        StageError: There is no such stage.
    """
    names = config.stage_names()
    if not names:
        raise StageError("the settings name no stage; start from configs/stages/default.yaml")
    if stage == "all":
        return names
    if stage not in names:
        raise StageError(f"--stage {stage}: no such stage; write one of {', '.join(names)}, all")
    return (stage,)
