"""The training loop: it learns, survives kills with the same bytes, and fails with a reason."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from toy_task import SETTINGS, ToyTask, train

from musicon.datasets.records import UserError
from musicon.detect import logs
from musicon.detect.config import FitConfig
from musicon.detect.logs import RunFolder
from musicon.detect.sampling import Positions, mix
from musicon.detect.stopping import interruption
from musicon.detect.storage import CheckpointError
from musicon.detect.training import (
    PREVIEWS,
    Average,
    TrainingError,
    parameter_groups,
    rate_at,
)

PROGRAM = Path(__file__).with_name("toy_task.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(PROGRAM), str(folder), *options],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=ENVIRONMENT)


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    """Until the log has that many rows (or the process ends by itself)."""
    file = folder / "logs" / "toy.csv"
    while process.poll() is None:
        if file.is_file() and file.read_bytes().count(b"\n") > step:
            return
        time.sleep(0.002)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "toy.csv").open(newline="") as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


def fail_after(folder: Path, step: int, **options: Any) -> None:
    """Leave a run that stopped without warning in the step after ``step``."""
    class Fails(ToyTask):
        calls = 0

        def losses(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            self.calls += 1
            if self.calls > step * SETTINGS.accumulate:
                raise UserError("the disk is gone")
            return super().losses(model, batch)

    with pytest.raises(UserError, match="the disk is gone"):
        train(folder, task=Fails(), **options)


def weights(model: nn.Module) -> bytes:
    """All the bytes of a model's weights and buffers."""
    return b"".join(value.numpy().tobytes() for value in model.state_dict().values())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the programs that are killed: other numbers of threads may round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    """Weights and folder of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    task, _ = train(folder)
    return weights(task.model), folder


def test_it_learns_and_logs(tmp_path: Path) -> None:
    cfg = SETTINGS.model_copy(update={"steps": 150, "learning_rate": 0.02, "evaluate_every": 50})
    task, result = train(tmp_path, cfg)
    assert result.metrics["accuracy"] > 0.9
    best = max(float(row["score"]) for row in rows(tmp_path) if row["score"])
    assert result.score == pytest.approx(best, rel=1e-5)
    assert task.evaluate(task.model.eval())["score"] == pytest.approx(result.score)
    log = rows(tmp_path)
    assert [int(row["step"]) for row in log] == list(range(1, 151))
    for row in log:
        parts = float(row["loss_cross_entropy"]) + float(row["loss_penalty"])
        assert float(row["loss"]) == pytest.approx(parts, rel=1e-4)
    assert [row["step"] for row in log if row["score"]] == ["50", "100", "150"]
    for name in ("toy.png", "toy-examples.png"):
        assert (tmp_path / "logs" / name).read_bytes().startswith(b"\x89PNG")
    board = EventAccumulator(str(tmp_path / "logs" / "tensorboard" / "toy")).Reload()
    assert len(board.Scalars("loss")) == 150
    assert board.Scalars("validation/accuracy")[-1].value == pytest.approx(
        float(log[-1]["accuracy"]), abs=1e-4)


def test_curves_are_drawn_while_training_runs(tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "CURVES_EVERY", 0.0)
    log = logs.TrainingLog(tmp_path, "toy", steps=4, quiet=True)
    log.add(1, {"cross_entropy": 1.0}, 0.1, 0.5)
    assert not (tmp_path / "toy.png").exists()
    log.add(2, {"cross_entropy": 0.9}, 0.1, 1.0, {"score": 0.5})
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")
    log.close()


def test_kill_9_at_any_step_changes_no_byte(uninterrupted: tuple[bytes, Path],
                                            tmp_path: Path) -> None:
    step = random.Random(time.time_ns()).randint(1, SETTINGS.steps - 3)
    process = start(tmp_path)
    wait_for_step(process, tmp_path, step)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it was killed while it ran"
    task, _ = train(tmp_path)
    repeated = SETTINGS.steps - step + SETTINGS.checkpoint_every + 1
    assert len(task.seen) <= repeated * SETTINGS.batch_size * SETTINGS.accumulate + PREVIEWS
    assert weights(task.model) == uninterrupted[0], f"killed after step {step}"
    assert rows(tmp_path) == rows(uninterrupted[1])
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("step", [1, 3, 14, 22, 39])
def test_going_on_after_any_step_changes_no_byte(uninterrupted: tuple[bytes, Path],
                                                 tmp_path: Path, step: int) -> None:
    fail_after(tmp_path, step)
    task, _ = train(tmp_path)
    repeated = SETTINGS.steps - step + step % SETTINGS.checkpoint_every
    assert len(task.seen) == (repeated * SETTINGS.batch_size * SETTINGS.accumulate
                              + (PREVIEWS if step < SETTINGS.checkpoint_every else 0))
    assert weights(task.model) == uninterrupted[0]
    assert rows(tmp_path) == rows(uninterrupted[1])


def test_ctrl_c_saves_and_goes_on(uninterrupted: tuple[bytes, Path], tmp_path: Path,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    process = start(tmp_path)
    wait_for_step(process, tmp_path, 10)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert "the state is saved, the same command goes on from here" in output
    stopped = int(output.split("stopped after step ")[1].split()[0])
    task, _ = train(tmp_path, quiet=False)
    assert f"going on after step {stopped} of 40" in capsys.readouterr().out
    assert weights(task.model) == uninterrupted[0]


def test_a_second_ctrl_c_stops_at_once() -> None:
    with interruption() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_two_processes_learn_what_one_with_twice_the_batch_does(tmp_path: Path) -> None:
    double = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(PROGRAM), str(tmp_path), "--plain", "--steps", "12", "--processes", "2"],
        capture_output=True, text=True, timeout=180, env=ENVIRONMENT)
    assert double.returncode == 0, double.stderr[-2000:]
    cfg = SETTINGS.model_copy(update={"steps": 12, "batch_size": 2 * SETTINGS.batch_size})
    task, _ = train(tmp_path / "single", cfg, task=ToyTask(plain=True))
    found = torch.load(tmp_path / "final.pt", weights_only=True)
    for name, value in task.model.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    assert [row["step"] for row in rows(tmp_path)] == [str(i) for i in range(1, 13)]
    assert double.stdout.count("toy 12/12") == 1


def test_the_first_process_looks_through_the_parents_eyes_first(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(PROGRAM.with_name("taking_turns.py")), str(tmp_path / "turns")],
        capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "turns").read_text().splitlines() == [
        "0 begins", "0 ends", "1 begins", "1 ends"]


def test_loader_processes_change_nothing(tmp_path: Path) -> None:
    cfg = SETTINGS.model_copy(update={"steps": 4})
    first, _ = train(tmp_path / "a", cfg)
    second, _ = train(tmp_path / "b", cfg, workers=2)
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_finished_run_is_not_repeated_and_other_settings_begin_anew(tmp_path: Path) -> None:
    cfg = SETTINGS.model_copy(update={"steps": 4})
    _, first = train(tmp_path, cfg, fingerprint={"rate": 1})
    task, again = train(tmp_path, cfg, fingerprint={"rate": 1})
    assert again == first
    assert not task.seen
    task, _ = train(tmp_path, cfg, fingerprint={"rate": 2})
    assert len(task.seen) == 4 * cfg.batch_size * cfg.accumulate + PREVIEWS


def test_a_cut_off_run_of_other_settings_leaves_nothing_false_behind(tmp_path: Path) -> None:
    cfg = SETTINGS.model_copy(update={"steps": 4, "evaluate_every": 2, "checkpoint_every": 100})
    first, result = train(tmp_path, cfg, fingerprint={"rate": 1})

    class Fails(ToyTask):
        def losses(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            if len(self.seen) > 4 * cfg.batch_size * cfg.accumulate + PREVIEWS:
                raise UserError("the disk is gone")
            return super().losses(model, batch)

    with pytest.raises(UserError, match="the disk is gone"):
        train(tmp_path, cfg.model_copy(update={"steps": 8}), task=Fails(), fingerprint={"rate": 2})
    assert (RunFolder(tmp_path).checkpoints / f"toy-best-{result.best_step:07d}.safetensors"
            ).is_file(), "the second run reached the step that was best in the first"
    again, repeated = train(tmp_path, cfg, fingerprint={"rate": 1})
    assert repeated.metrics == result.metrics
    assert again.evaluate(again.model.eval())["score"] == pytest.approx(result.score)
    assert weights(again.model) == weights(first.model)


def test_an_unfinished_run_of_other_settings_is_refused(tmp_path: Path) -> None:
    fail_after(tmp_path, 7, fingerprint={"fit": {"rate": 1}})
    with pytest.raises(CheckpointError, match=r"step 6.*fit.rate: 1 -> 2.*--fresh"):
        train(tmp_path, fingerprint={"fit": {"rate": 2}})


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    fail_after(tmp_path, 7)
    file = RunFolder(tmp_path).checkpoints / "toy.ckpt"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"toy\.ckpt: the checkpoint is damaged .*--fresh"):
        train(tmp_path)


def test_a_loss_that_is_not_finite_names_its_images(tmp_path: Path) -> None:
    task = ToyTask(poisoned=[5])
    with pytest.raises(TrainingError, match=r"step \d+ of the toy: the loss is not finite "
                                            r"\(cross_entropy nan.*item-5\.png"):
        train(tmp_path, task=task)
    assert all(torch.isfinite(value).all() for value in task.model.parameters())


def test_a_score_that_is_not_finite_stops(tmp_path: Path) -> None:
    class Blind(ToyTask):
        def evaluate(self, model: nn.Module) -> dict[str, float]:
            return {"score": float("nan")}

    with pytest.raises(TrainingError, match="validation score is nan"):
        train(tmp_path, task=Blind())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_one_sentence(tmp_path: Path, workers: int) -> None:
    with pytest.raises(UserError) as caught:
        train(tmp_path, task=ToyTask(unreadable=range(24)), workers=workers)
    assert str(caught.value).endswith(".png: truncated")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("patience, steps", [(2, 16), (None, 20)])
def test_the_best_weights_are_kept(tmp_path: Path, patience: int | None, steps: int) -> None:
    class Declines(ToyTask):
        scores = iter([0.2, 0.5, 0.4, 0.3, 0.3])

        def evaluate(self, model: nn.Module) -> dict[str, float]:
            return {"score": next(self.scores)}

    cfg = SETTINGS.model_copy(update={"steps": 20, "evaluate_every": 4, "patience": patience})
    _, result = train(tmp_path, cfg, task=Declines())
    assert (result.steps, result.best_step, result.score) == (steps, 8, 0.5)


def test_the_last_weights_are_kept_where_validation_finds_nothing(tmp_path: Path) -> None:
    class Blind(ToyTask):
        scores = iter([0.0, 0.0, 0.0, 0.2, 0.2])

        def evaluate(self, model: nn.Module) -> dict[str, float]:
            return {"score": next(self.scores)}

    cfg = SETTINGS.model_copy(update={"steps": 12, "evaluate_every": 4, "patience": 1})
    _, result = train(tmp_path / "a", cfg, task=Blind())
    assert (result.steps, result.best_step, result.score) == (12, 12, 0)
    Blind.scores = iter([0.0, 0.0, 0.0, 0.2, 0.2])
    _, result = train(tmp_path / "b", cfg.model_copy(update={"steps": 40}), task=Blind())
    assert (result.steps, result.best_step, result.score) == (20, 16, 0.2)


def test_rate_by_hand() -> None:
    cfg = FitConfig(steps=20, warmup_steps=4)
    rates = [rate_at(step, cfg) for step in range(1, 21)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[12] == pytest.approx(0.5)  # half of the 16 steps after the warm-up
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.01
    assert [rate_at(s, FitConfig(steps=2, warmup_steps=50)) for s in (1, 2)] == [1.0, 0.5]


def test_average_is_torch_s() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    # (1 + step) / (10 + step) is above 0.1 from the first step on: a constant decay.
    ours, theirs = Average(model, 0.1), AveragedModel(
        model, multi_avg_fn=get_ema_multi_avg_fn(0.1), use_buffers=True)
    theirs.update_parameters(model)
    for step in range(1, 6):
        with torch.no_grad():
            for value in model.parameters():
                value.add_(torch.randn_like(value))
        model(torch.randn(4, 3))
        ours.update(model, step)
        theirs.update_parameters(model)
    for (name, a), b in zip(ours.model.state_dict().items(), theirs.module.state_dict().values(),
                            strict=True):
        if a.is_floating_point():
            torch.testing.assert_close(a, b, msg=name)
        else:
            assert a == 5


def test_parameter_groups_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    model[2].bias.requires_grad_(False)
    groups = parameter_groups(model, FitConfig(learning_rate=1.0, backbone_scale=0.1,
                                               weight_decay=0.5),
                              lambda name: name.startswith(("0.", "1.")))
    found = {(g["lr"], g["weight_decay"]): [tuple(p.shape) for p in g["params"]] for g in groups}
    assert found == {(0.1, 0.5): [(3, 2)], (0.1, 0.0): [(3,), (3,), (3,)], (1.0, 0.5): [(1, 3)]}


def test_positions_cover_the_run_once() -> None:
    cfg = FitConfig(steps=5, batch_size=3, accumulate=2)
    seen = [p for rank in range(4) for batch in Positions(cfg, 0, rank, 4) for p in batch]
    assert sorted(seen) == list(range(5 * 2 * 3 * 4))
    whole, rest = list(Positions(cfg, 0, 1, 4)), list(Positions(cfg, 3, 1, 4))
    assert rest == whole[6:]
    assert len(Positions(cfg, 3, 1, 4)) == len(rest)


def test_mixed_seeds_differ() -> None:
    seeds = {mix(a, b, c) for a in range(5) for b in range(5) for c in range(5)}
    assert len(seeds) == 125
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert np.random.default_rng([1, 2]).random() != np.random.default_rng([2, 1]).random()


def test_half_precision_trains(tmp_path: Path) -> None:
    cfg = SETTINGS.model_copy(update={"steps": 6})
    task, result = train(tmp_path, cfg, fabric=Fabric(accelerator="cpu", devices=1,
                                                      precision="bf16-mixed"))
    assert np.isfinite(result.score)
    assert all(value.dtype == torch.float32 for value in task.model.parameters())
