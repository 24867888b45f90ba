"""A trained task: pictures of whole works -> their class, or "uncertain"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musicon.datasets.files import sha256
from musicon.detect.checkpoints import (
    ModelFolderError,
    model_folder,
    put_weights,
    read_categories,
    read_config,
    read_lineage,
    read_metrics,
    read_weights,
    task_models,
)
from musicon.detect.devices import pick_device
from musicon.detect.model_files import WEIGHTS
from musicon.detect.tasks import UNCERTAIN, Said, TaskError, TaskKind, load
from musicon.detect.tasks.networks import Image, WorkClassifier, to_tensor, views
from musicon.detect.tasks.scores import top
from musicon.detect.tasks.settings import TaskConfig

BATCH = 32


@dataclass(frozen=True)
class TaskModel:
    """A model folder of a task in memory.

    Attributes:
        kind: The task.
        network: In eval mode.
        config: The settings that it was trained with.
        classes: Names, in the order of the outputs.
        metrics: Figures of its training.
        lineage: Data, versions, seed.
        folder: Where it was read.
    """

    kind: TaskKind
    network: WorkClassifier
    config: TaskConfig
    classes: tuple[str, ...]
    metrics: Mapping[str, Any]
    lineage: Mapping[str, Any]
    folder: Path

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "auto") -> TaskModel:
        """Read a run or model folder.

        Raises:
            ModelFolderError: Not a model of a task, damaged, or of another version.
        """
        root = model_folder(folder)
        lineage = read_lineage(root)
        if "task" not in lineage:
            raise ModelFolderError(f"{root}: this model finds instruments; a work's attributes "
                                   "need one trained with python tools/train_net.py --task NAME")
        config = read_config(root, lineage, TaskConfig)
        classes = tuple(category.name for category in read_categories(root, lineage))
        state = read_weights(root, lineage)
        untrained = config.network.model_copy(update={"weights": "none"})
        network = WorkClassifier(untrained, len(classes))
        network.known = torch.zeros_like(state.get("known", network.known))
        put_weights(network, state, "network", root, lineage)
        network.to(pick_device(device) if isinstance(device, str) else device).eval()
        return cls(load(lineage["task"]), network, config, classes, read_metrics(root), lineage,
                   root)

    @property
    def fingerprint(self) -> str:
        """The check sum of its weights."""
        return str(self.lineage.get("weights_sha256") or sha256(self.folder / WEIGHTS))

    def label(self, pictures: Sequence[Image]) -> list[Said]:
        """Name whole pictures, uint8 RGB (H, W, 3) of any sizes."""
        if not pictures:
            return []
        parts = [np.stack([views(picture, self.config.network, self.config.views)
                           for picture in pictures[start:start + BATCH]])
                 for start in range(0, len(pictures), BATCH)]
        logits, likeness = zip(*(judge(self.network, compute(self.network, part))
                                 for part in parts), strict=True)
        p, doubts = decide(self.network, torch.cat(logits), torch.cat(likeness))
        return [Said(UNCERTAIN if doubt else self.classes[int(row.argmax())],
                     top(row, self.classes)) for row, doubt in zip(p, doubts, strict=True)]


def find(name: str, root: str | Path = "runs") -> Path:
    """The newest model folder of a task.

    Raises:
        ModelFolderError: None was trained yet.
        TaskError: There is no such task.
    """
    kind = load(name)
    found = task_models(kind.name, root)
    if not found:
        raise ModelFolderError(f"{root}: no trained model of the {name}; train one with python "
                               f"tools/train_net.py --task {name} --config "
                               f"configs/tasks/{name}.yaml, or give its folder: {name}=FOLDER")
    return found[-1]


def load_all(wanted: str, device: str = "auto", root: str | Path = "runs") -> tuple[TaskModel, ...]:
    """The models of ``movement,painter=FOLDER``: each the newest trained, or the one in a folder.

    Raises:
        TaskError: An attribute named twice, or a folder that holds another's model.
        ModelFolderError: None was trained yet, or it can't be used.
    """
    models = []
    for part in wanted.split(","):
        name, _, folder = (text.strip() for text in part.partition("="))
        model = TaskModel.load(folder or find(name, root), device)
        if model.kind.name != name:
            raise TaskError(f"--attributes {part}: {model.folder} tells the {model.kind.name}; "
                            f"write {model.kind.name}={folder}")
        models.append(model)
    names = [model.kind.name for model in models]
    if len(set(names)) < len(names):
        raise TaskError(f"--attributes {wanted}: name each attribute once")
    return tuple(models)


@torch.inference_mode()
def compute(network: WorkClassifier, pictures: Image) -> NDArray[np.float32]:
    """Features (N, V, *shape) of the views (N, V, S, S, 3) of N works."""
    count, versions = pictures.shape[:2]
    device = network.mean.device
    flat = to_tensor(pictures.reshape(count * versions, *pictures.shape[2:]))
    parts = [network.features(part.to(device)).float().cpu() for part in flat.split(BATCH)]
    found: NDArray[np.float32] = torch.cat(parts).view(count, versions,
                                                       *network.feature_shape).numpy()
    return found


@torch.inference_mode()
def judge(network: WorkClassifier, features: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Logits (N, L), averaged over views, and likeness (N,) to known works, on the CPU."""
    rows = torch.from_numpy(np.array(features)).to(network.mean.device)
    logits = network.head(rows.flatten(0, 1)).view(*rows.shape[:2], -1).mean(1)
    return logits.float().cpu(), network.likeness(rows.mean(1)).cpu()


def decide(network: WorkClassifier, logits: Tensor,
           likeness: Tensor) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Calibrated probabilities (N, L), and which works (N,) are uncertain."""
    p = (logits / network.temperature.cpu()).softmax(1)
    doubts = (likeness < network.least_likeness.cpu()) | (
        p.amax(1) < network.least_confidence.cpu())
    return p.numpy(), doubts.numpy()
