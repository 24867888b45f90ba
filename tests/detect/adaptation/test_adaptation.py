"""Methods by name, together in one loop, stopped and gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from small_stage import context, make_data, models, settings

from musicon.datasets.records import UserError
from musicon.detect.adaptation import METHODS, adapt, resolved
from musicon.detect.adaptation.base import AdaptedTask
from musicon.detect.config import Config, ConfigError, dump, load
from musicon.detect.crops import ClassifierTask
from musicon.detect.logs import RunFolder
from musicon.detect.stage_checks import (
    StageError,
    check_data,
    data_of,
    fingerprint,
    fit_fingerprint,
)
from musicon.detect.training import fit


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("adaptation"))


def both(data: Path) -> list[dict[str, object]]:
    return [{"name": name, "targets": [str(data / "art")]} for name in METHODS]


def test_unknown_names_and_settings_list_what_there_is(data: Path) -> None:
    with pytest.raises(ConfigError, match="named 'teach'; write one of adversarial, teacher"):
        settings(data, {"name": "teach", "targets": ["x"]})
    with pytest.raises(ConfigError, match="the method has no name; write one of adversarial"):
        settings(data, {"burn_in": 0.2})  # as --set on a list of methods would leave it
    with pytest.raises(ConfigError, match=r"burnin: unknown setting; did you mean burn_in\?"):
        settings(data, {"name": "teacher", "targets": ["x"], "burnin": 1})
    with pytest.raises(ConfigError, match="targets: must be given"):
        settings(data, {"name": "teacher"})
    with pytest.raises(ConfigError, match="least_confidence is above most_confidence"):
        settings(data, {"name": "teacher", "targets": ["x"], "least_confidence": 0.99})


def test_settings_are_saved_whole_and_read_back(data: Path, tmp_path: Path) -> None:
    config = settings(data, both(data))
    (tmp_path / "config.yaml").write_text(dump(config))
    again = load(tmp_path / "config.yaml", ["stages.mimo.classifier.steps=7"])
    assert again.stages["mimo"].adaptation == config.stages["mimo"].adaptation
    one = load(tmp_path / "config.yaml", [
        "stages.mimo.adaptation={name: teacher, targets: [a, b], bank: styles}"])
    (method,) = one.stages["mimo"].adaptation
    assert [key for key, _ in method.manifests()] == ["targets.0", "targets.1", "bank"]
    assert "bank" not in dict(data_of(config, "mimo"))


def test_missing_targets_are_refused_early(data: Path) -> None:
    config = settings(data, {"name": "teacher", "targets": [str(data / "nowhere")]})
    with pytest.raises(StageError, match=r"stages.mimo.adaptation.0.targets.0.*"
                       "or do without: --set stages.mimo.adaptation=null"):
        check_data(config, "mimo")


def test_an_optional_method_is_left_out_where_its_targets_are_missing(
        data: Path, caplog: pytest.LogCaptureFixture) -> None:
    missing = {"name": "teacher", "targets": [str(data / "nowhere")], "optional": True}
    config = settings(data, [missing, {**both(data)[0], "optional": True}])
    found = resolved(config, ["mimo"])
    assert found.stages["mimo"].adaptation == config.stages["mimo"].adaptation[1:]
    assert "nowhere is not there, so it learns without adaptation teacher" in caplog.text
    check_data(found, "mimo")
    needed = settings(data, {**missing, "optional": False})
    assert resolved(needed, ["mimo"]) == needed


def test_what_changes_no_result_is_no_other_stage(data: Path, tmp_path: Path) -> None:
    """Whether a method may be left out, and where its bank lies."""
    (tmp_path / "moved").mkdir()
    for name in ("", "moved"):
        (tmp_path / name / "manifest.json").write_bytes(
            (data / "art" / "manifest.json").read_bytes())
    method = {"name": "teacher", "targets": [str(data / "art")], "bank": str(tmp_path)}
    plain, moved, weaker = (fingerprint(settings(data, {**method, **changes}), "mimo", 1, None)
                            for changes in ({}, {"optional": True, "bank": str(tmp_path / "moved")},
                                            {"bank": {"path": str(tmp_path), "probability": 0.2}}))
    assert plain == moved != weaker


def test_what_concerns_the_detector_alone_keeps_the_classifier(data: Path) -> None:
    method = {"name": "teacher", "targets": [str(data / "art")], "models": ["detector"]}
    whole = {"name": "adversarial", "targets": [str(data / "art")], "levels": ["image"]}
    plain, detector, share, weight, every = (
        fingerprint(config, "mimo", 1, None) for config in (
            settings(data, [whole]), settings(data, [whole, method]),
            settings(data, [whole], composites={"share": 0.9}),
            settings(data, [whole], composites={"crop_share": 0.9}),
            settings(data, [whole, {**method, "models": ["classifier", "detector"]}])))
    for other, differs in ((detector, False), (share, False), (weight, True), (every, True)):
        assert (fit_fingerprint(plain, "classifier") != fit_fingerprint(other, "classifier")
                ) is differs
        assert fit_fingerprint(plain, "detector") != fit_fingerprint(other, "detector")


def test_a_method_works_on_the_models_it_is_given(data: Path, tmp_path: Path) -> None:
    config = settings(data, {**both(data)[0], "models": ["detector"]})
    ctx = context(config, tmp_path)
    task = ClassifierTask(models(config)[0], ctx)
    assert adapt(task, ctx) is task


def test_a_bank_of_other_pictures_is_refused(data: Path, tmp_path: Path) -> None:
    config = settings(data, {"name": "teacher", "targets": [str(data / "art")],
                             "bank": str(data / "photos")})
    ctx = context(config, tmp_path)
    with pytest.raises(UserError, match=r"photos: the bank holds no styled .* --content .*art"):
        adapt(ClassifierTask(models(config)[0], ctx), ctx)


def test_targets_without_training_pictures_are_refused(data: Path, tmp_path: Path) -> None:
    import json

    folder = tmp_path / "test_only"
    folder.mkdir()
    document = json.loads((data / "art" / "manifest.json").read_text())
    for image in document["images"]:
        image["split"] = "test"
    (folder / "manifest.json").write_text(json.dumps(document))
    config = settings(data, {"name": "teacher", "targets": [str(folder)]})
    ctx = context(config, tmp_path)
    with pytest.raises(UserError, match="no image is in the split 'train'"):
        adapt(ClassifierTask(models(config)[0], ctx), ctx)


def test_a_stopped_run_of_both_goes_on_with_the_same_bytes(data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = settings(data, [{**method, **({"burn_in": 0.2} if method["name"] == "teacher"
                                           else {})} for method in both(data)])

    def run(folder: Path, stop_after: int | None = None) -> AdaptedTask:
        ctx = context(config, tmp_path / "cache")
        task = adapt(ClassifierTask(models(config)[0], ctx), ctx)
        assert isinstance(task, AdaptedTask)
        plain, calls = task.losses, []

        def losses(model: object, batch: object) -> dict[str, torch.Tensor]:
            calls.append(1)
            if stop_after is not None and len(calls) > stop_after:
                raise UserError("the power is gone")
            return plain(model, batch)  # type: ignore[arg-type]

        task.losses = losses  # type: ignore[method-assign]
        fit(task, ctx.stage.classifier, RunFolder(folder), Fabric(accelerator="cpu", devices=1),
            seed=3, quiet=True)
        return task

    whole = run(tmp_path / "whole")
    with pytest.raises(UserError, match="power"):
        run(tmp_path / "parts", stop_after=2)
    again = run(tmp_path / "parts")
    for (name, first), second in zip(whole.model.state_dict().items(),
                                     again.model.state_dict().values(), strict=True):
        assert torch.equal(first, second), name
    header = (tmp_path / "whole" / "logs" / "classifier.csv").read_text().splitlines()[0]
    assert "domain_accuracy_instance" in header and "pseudo_labelled" in header


def test_no_adaptation_is_the_default() -> None:
    assert Config.model_validate({"stages": {"s": {"manifest": "x"}}}).stages["s"].adaptation == ()
