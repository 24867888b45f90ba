"""Model folders: what training leaves and inference needs."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from musicon.datasets.files import sha256
from musicon.datasets.records import Category, Manifest, UserError, write_atomic
from musicon.detect.backbones import last_linear
from musicon.detect.config import Config, ConfigError, S, Settings, dump, load_as
from musicon.detect.model_files import (
    CATEGORIES,
    CONFIG,
    LINEAGE,
    METRICS,
    MODEL_FILES,
    RESCORER,
    WEIGHTS,
    aside_of,
    restored,
    swap,
)
from musicon.detect.rescoring import Rescorer
from musicon.detect.storage import write_tensors

FORMAT = 1
"""Of model folders, in ``lineage.json``; raised whenever an older reader would misread one."""
PACKAGES = ("musicon", "torch", "torchvision", "timm", "numpy", "opencv-python-headless",
            "albumentations")


class ModelFolderError(UserError):
    """A model folder that cannot be used; the message says what is wrong and what to type."""


@dataclass(frozen=True)
class LoadedModel:
    """A model folder in memory.

    Attributes:
        classifier: ``CropClassifier`` in eval mode.
        detector: An engine's detector in eval mode.
        config: The settings that it was trained with.
        categories: Its classes; label k is ``categories[k - 1]``.
        metrics: Validation figures.
        lineage: Stage, parent, data, versions, seed.
        folder: Where it was read.
        rescorer: In eval mode, if the model has one.
    """

    classifier: Any
    detector: Any
    config: Config
    categories: tuple[Category, ...]
    metrics: Mapping[str, Any]
    lineage: Mapping[str, Any]
    folder: Path
    rescorer: Rescorer | None = None

    @property
    def stage(self) -> str:
        """The stage that made it."""
        return str(self.lineage.get("stage", "?"))


def save_model(folder: Path, *, classifier: nn.Module, detector: nn.Module, config: Config,
               categories: Sequence[Category], metrics: Mapping[str, Any],
               lineage: Mapping[str, Any], rescorer: Rescorer | None = None) -> None:
    """Write the model folder of a stage."""
    state = {f"classifier.{k}": v for k, v in classifier.state_dict().items()}
    state |= {f"detector.{k}": v for k, v in detector.state_dict().items()}
    write_model(folder, state=state, config=config, categories=categories, metrics=metrics,
                lineage=lineage, rescorer=rescorer)


def write_model(folder: Path, *, state: Mapping[str, Tensor], config: Settings,
                categories: Sequence[Category], metrics: Mapping[str, Any],
                lineage: Mapping[str, Any], rescorer: Rescorer | None = None) -> None:
    """Write a model folder as a whole: readers see the old one or the new one, never a part."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    try:
        write_tensors(new / WEIGHTS, state)
        write_atomic(new / CONFIG, dump(config))
        categories_json = Manifest(folder, tuple(categories), ()).to_coco()["categories"]
        _write_json(new / CATEGORIES, categories_json)
        _write_json(new / METRICS, metrics)
        sums = {"weights_sha256": sha256(new / WEIGHTS)}
        if rescorer is not None:
            write_tensors(new / RESCORER, rescorer.state_dict())
            sums["rescorer_sha256"] = sha256(new / RESCORER)
        _write_json(new / LINEAGE, {"format": FORMAT, **lineage, **sums})
        new.chmod(0o755)
        swap(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def load_model(folder: str | Path, device: str | torch.device = "cpu") -> LoadedModel:
    """Read a model folder, or the model in a run folder.

    Raises:
        ModelFolderError: Missing, damaged, incomplete, or of another version.
    """
    from musicon.detect import classifier as classifiers
    from musicon.detect import detectors

    root = model_folder(folder)
    lineage = read_lineage(root)
    if "task" in lineage:
        raise ModelFolderError(f"{root}: this model tells a work's {lineage['task']} and finds no "
                               f"instruments; give it with --attributes {lineage['task']}={root}")
    config, categories = read_config(root, lineage, Config), read_categories(root, lineage)
    if isinstance(config.detector.config, Path):  # reading such a file may run it
        raise ModelFolderError(f"{root / CONFIG}: detector.config names a file instead of holding "
                               "what is in it, which training never writes; copy the folder again, "
                               f"or {_remedy(lineage)}")
    metrics, state = read_metrics(root), read_weights(root, lineage)
    untrained = {"weights": "none"}  # nothing is fetched that would be overwritten at once
    classifier = classifiers.build(config.classifier.model_copy(update=untrained), len(categories))
    detector: Any = detectors.build(config.detector.model_copy(update=untrained), len(categories),
                                    classifier)
    for name, module in (("classifier", classifier), ("detector", detector)):
        part = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        put_weights(module, part, name, root, lineage)
        module.to(device).eval()
    return LoadedModel(classifier, detector, config, categories, metrics, lineage, root,
                       _read_rescorer(root, lineage, classifier))


def _read_rescorer(root: Path, lineage: Mapping[str, Any], classifier: Any) -> Rescorer | None:
    if "rescorer_sha256" not in lineage:
        return None
    _, head = last_linear(classifier.network)
    rescorer = Rescorer(2 * head.in_features)
    state = _read_tensors(root / RESCORER, lineage, "rescorer_sha256")
    put_weights(rescorer, state, "rescorer", root, lineage)
    return rescorer.eval()


def read_weights(root: Path, lineage: Mapping[str, Any]) -> dict[str, Tensor]:
    """A model folder's weights, checked to be those that were written.

    Raises:
        ModelFolderError: They cannot be read, or are damaged.
    """
    return _read_tensors(root / WEIGHTS, lineage, "weights_sha256")


def _read_tensors(file: Path, lineage: Mapping[str, Any], check_sum: str) -> dict[str, Tensor]:
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelFolderError(f"{file}: the weights cannot be read ({error}); "
                               f"{_remedy(lineage)}") from None
    # A bit that fell over on a disk or a stick gives pictures without instruments, not an error.
    if lineage.get(check_sum) not in (None, sha256(file)) or not all(
            torch.isfinite(value).all() for value in state.values()):
        raise ModelFolderError(f"{file}: the weights are damaged; copy the folder again, "
                               f"or {_remedy(lineage)}")
    return state


def put_weights(module: nn.Module, state: Mapping[str, Tensor], what: str, root: Path,
                lineage: Mapping[str, Any]) -> None:
    """Load weights into the module that a model folder's settings describe.

    Raises:
        ModelFolderError: They do not fit.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ModelFolderError(f"{root}: the weights do not fit the {what} that its "
                               f"{CONFIG} describes ({reason}); {_remedy(lineage)}") from None


def model_folder(folder: str | Path) -> Path:
    """The model folder meant by a run folder, a stage folder or the model folder itself.

    Of a run's stages the last trained one counts.

    Raises:
        ModelFolderError: There is no model.
    """
    root = Path(folder)
    for candidate in (restored(root), restored(root / "model")):
        if (candidate / WEIGHTS).is_file() or (candidate / LINEAGE).is_file():
            return candidate
    if _models(root, "*"):
        return find_newest(root)
    what = "no such folder" if not root.is_dir() else f"there is no model in it (no {WEIGHTS})"
    raise ModelFolderError(f"{root}: {what}; train one with python tools/train_net.py --stage all, "
                           "or give --model FOLDER")


def find_newest(root: str | Path = "runs") -> Path:
    """The model folder trained last; of equally old ones the one with the longest lineage.

    Models that label whole works don't count.

    Raises:
        ModelFolderError: Nothing was trained yet.
    """
    found = [folder for folder in _models(Path(root), "**")
             if "task" not in _read_object(folder / LINEAGE)]
    if not found:
        raise ModelFolderError(f"{root}: no trained model; make one with make demo, train one "
                               "with python tools/train_net.py --stage all, or give --model FOLDER "
                               "(infer.py --attributes NAME --no-boxes needs none)")
    return max(found, key=lambda f: (int((f / WEIGHTS).stat().st_mtime),
                                     len(_read_object(f / LINEAGE).get("ancestors", []))))


def task_models(task: str, root: str | Path = "runs") -> list[Path]:
    """Model folders that tell a task's attribute of whole works, the newest last."""
    found = [folder for folder in _models(Path(root), "**")
             if _read_object(folder / LINEAGE).get("task") == task]
    return sorted(found, key=lambda folder: (folder / WEIGHTS).stat().st_mtime)


def is_task(folder: str | Path) -> bool:
    """Whether a run or model folder holds a model that labels whole works.

    Raises:
        ModelFolderError: There is no model.
    """
    return "task" in read_lineage(model_folder(folder))


def _models(root: Path, above: str) -> list[Path]:
    """Model folders below ``root``; ``above`` is the pattern of the folders that they lie in."""
    places = {file.parent.parent / "model" for name in ("model", aside_of(Path("model")).name)
              for file in root.glob(f"{above}/{name}/{WEIGHTS}")}
    return [folder for place in sorted(places)
            if ((folder := restored(place)) / LINEAGE).is_file()]


def read_lineage(folder: Path) -> dict[str, Any]:
    """A model folder's ``lineage.json``, checked to be of this version.

    Raises:
        ModelFolderError: A file is missing, or another version wrote it.
    """
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        raise ModelFolderError(f"{folder}: not a whole model folder, {', '.join(missing)} missing; "
                               "train it again with python tools/train_net.py, or copy it whole")
    lineage = _read_object(folder / LINEAGE)
    if "rescorer_sha256" in lineage and not (folder / RESCORER).is_file():
        raise ModelFolderError(f"{folder}: not a whole model folder, {RESCORER} missing; train it "
                               "again with python tools/train_net.py, or copy it whole")
    if lineage.get("format") != FORMAT:
        raise ModelFolderError(
            f"{folder}: this model folder has format {lineage.get('format')!r}, this version of "
            f"musicon reads format {FORMAT} (it was written by musicon "
            f"{lineage.get('versions', {}).get('musicon', 'unknown')}); {_remedy(lineage)}")
    return lineage


def read_metrics(folder: Path) -> dict[str, Any]:
    """A model folder's ``metrics.json``.

    Raises:
        ModelFolderError: Missing or damaged.
    """
    return _read_object(folder / METRICS)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _write_json(file: Path, value: Any) -> None:
    write_atomic(file, json.dumps(value, ensure_ascii=False, indent=1, sort_keys=False) + "\n")


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelFolderError(f"{file}: cannot be read ({error}); train the model again with "
                               "python tools/train_net.py, or copy it whole") from None


def _read_object(file: Path) -> dict[str, Any]:
    found = _read_json(file)
    if not isinstance(found, dict):
        raise ModelFolderError(f"{file}: expected a JSON object, found a {type(found).__name__}; "
                               "train the model again with python tools/train_net.py, or copy it "
                               "whole")
    return found


def read_config(root: Path, lineage: Mapping[str, Any], kind: type[S]) -> S:
    """A model folder's settings.

    Raises:
        ModelFolderError: Damaged, or of another version.
    """
    try:
        return load_as(kind, root / CONFIG)
    except ConfigError as error:
        raise ModelFolderError(f"{error}; damaged, or of another version of musicon: "
                               f"copy the folder again, or {_remedy(lineage)}") from None


def read_categories(root: Path, lineage: Mapping[str, Any]) -> tuple[Category, ...]:
    """A model folder's classes.

    Raises:
        ModelFolderError: Damaged.
    """
    document = {"images": [], "annotations": [], "categories": _read_json(root / CATEGORIES)}
    try:
        return Manifest.from_coco(document, root, source=str(root / CATEGORIES)).categories
    except UserError as error:
        reason = str(error).split(". To leave bad rows")[0]
        raise ModelFolderError(f"{reason}; copy the folder again, or {_remedy(lineage)}") from None


def _remedy(lineage: Mapping[str, Any]) -> str:
    what = (f"--task {lineage['task']} --config configs/tasks/{lineage['task']}.yaml"
            if "task" in lineage else f"--stage {lineage.get('stage', 'all')}")
    return f"train it again with python tools/train_net.py {what}"
