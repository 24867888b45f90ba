"""Where a run of the training loop stands: kept on disk, found again after a kill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.fabric import Fabric
from torch import nn

from musicon.detect.config import differences
from musicon.detect.logs import RunFolder
from musicon.detect.model_files import sweep
from musicon.detect.storage import (
    CheckpointError,
    read_checkpoint,
    read_tensors,
    write_checkpoint,
    write_tensors,
)

if TYPE_CHECKING:
    from musicon.detect.training import Average


@dataclass
class Progress:
    """How far a run is; saved in every checkpoint.

    Attributes:
        step: Steps done.
        best_step: Step of the best validation score; 0 before the first.
        best: Validation figures at that step.
        waited: Evaluations since then.
        seconds: Time spent, over all resumptions.
        finished: Nothing is left to do.
    """

    step: int = 0
    best_step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    waited: int = 0
    seconds: float = 0.0
    finished: bool = False


@dataclass(frozen=True)
class FitResult:
    """What a finished run amounts to; the task's model holds the best weights."""

    steps: int
    best_step: int
    metrics: dict[str, float]
    seconds: float

    @property
    def score(self) -> float:
        """The best validation score."""
        return self.metrics["score"]


class Keeper:
    """Keeps a run's state on disk: the last checkpoint and the best weights.

    The best weights are a file of their own, named by their step, so that a checkpoint always
    finds the ones that it speaks of; only one process of a run writes.
    """

    def __init__(self, name: str, run: RunFolder, fabric: Fabric,
                 fingerprint: Mapping[str, Any]) -> None:
        self.name, self.folder, self.fabric = name, run.checkpoints, fabric
        self.fingerprint = dict(fingerprint)
        self.file = self.folder / f"{name}.ckpt"
        self._state: dict[str, Any] | None = None

    def progress(self) -> Progress:
        """How far the run is; a finished run of other settings counts as not begun.

        Raises:
            CheckpointError: A damaged checkpoint, or an unfinished run of other settings.
        """
        if self.fabric.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            sweep(self.folder)
        self.fabric.barrier()
        if not self.file.is_file():
            return Progress()
        state = read_checkpoint(self.file)
        progress = Progress(**state["progress"])
        changed = differences(state["fingerprint"], self.fingerprint)
        if changed and not progress.finished:
            raise CheckpointError(
                f"{self.file}: this unfinished run ({self.name}, step {progress.step}) was started "
                f"with other settings or data ({'; '.join(changed[:4])}); restore them to go on, "
                "or start it again with --fresh")
        if changed:
            # Gone at once: else the best weights that it names could be overwritten by a run that
            # is cut off before its own first checkpoint.
            self.fabric.barrier()
            if self.fabric.is_global_zero:
                self.file.unlink()
            return Progress()
        self._state = state
        return progress

    def restore(self, progress: Progress, model: nn.Module, optimizer: Any,
                average: Average | None) -> None:
        """Put the checkpoint's tensors in place, where there is one."""
        if self._state is None or progress.step == 0:
            return
        model.load_state_dict(self._state["model"])
        optimizer.load_state_dict(self._state["optimizer"])
        if average:
            average.model.load_state_dict(self._state["average"])
        self.fabric.strategy.precision.load_state_dict(self._state["precision"])
        self._state = None

    def judge(self, progress: Progress, metrics: dict[str, float], model: nn.Module,
              patience: int | None) -> None:
        """Keep the weights if they are the best so far; finish when none were for long.

        While nothing scores at all, the latest are: they have learnt the longest.
        """
        best = progress.best.get("score")
        if best is None or metrics["score"] > best or metrics["score"] == best == 0:
            progress.best_step, progress.best, progress.waited = progress.step, metrics, 0
            if self.fabric.is_global_zero:
                write_tensors(self._best(progress.step), model.state_dict())
        else:
            progress.waited += 1
            if patience is not None and progress.waited >= patience:
                progress.finished = True

    def save(self, progress: Progress, model: nn.Module, optimizer: Any,
             average: Average | None) -> None:
        """Write the checkpoint, then drop the best weights that it no longer speaks of."""
        if self.fabric.is_global_zero:
            self._write(progress, model=model.state_dict(), optimizer=optimizer.state_dict(),
                        average=average.model.state_dict() if average else {},
                        precision=self.fabric.strategy.precision.state_dict())
        self.fabric.barrier()

    def finish(self, progress: Progress) -> None:
        """Note that the run is done; its optimiser is not needed any more."""
        if self.fabric.is_global_zero:
            self._write(progress)
        self.fabric.barrier()

    def result(self, model: nn.Module, progress: Progress) -> FitResult:
        """Load the best weights into the model."""
        model.load_state_dict(read_tensors(self._best(progress.best_step)))
        return FitResult(progress.step, progress.best_step, progress.best, progress.seconds)

    def _best(self, step: int) -> Path:
        return self.folder / f"{self.name}-best-{step:07d}.safetensors"

    def _write(self, progress: Progress, **tensors: Any) -> None:
        write_checkpoint(self.file, {"fingerprint": self.fingerprint,
                                     "progress": asdict(progress), **tensors})
        for left in self.folder.glob(f"{self.name}-best-*.safetensors"):
            if left != self._best(progress.best_step):
                left.unlink()
