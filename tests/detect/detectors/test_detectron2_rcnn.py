"""detectron2's own: what is said where it is missing, its files, its weights, its names.

Where the library is not to be had, the tests that need it are skipped and say why.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from musicon.datasets import command
from musicon.detect import classifier as classifiers
from musicon.detect import detectors
from musicon.detect.backbones import BackboneError
from musicon.detect.config import ClassifierConfig, ConfigError, DetectorConfig, load
from musicon.detect.detectors.detectron2_files import CHECKOUT, import_library
from musicon.detect.detectors.zoo_weights import detectron2_names, read_zoo
from musicon.detect.stages import train

FILE = """
MODEL:
  META_ARCHITECTURE: RetinaNet
  BACKBONE: {NAME: build_retinanet_resnet_fpn_backbone}
  RESNETS: {DEPTH: 18, RES2_OUT_CHANNELS: 64, OUT_FEATURES: [res3, res4, res5]}
  FPN: {IN_FEATURES: [res3, res4, res5], OUT_CHANNELS: 16}
  RETINANET: {NUM_CONVS: 1}
  ANCHOR_GENERATOR: {SIZES: !!python/object/apply:eval ["[[x] for x in [16, 32, 64, 100, 128]]"]}
"""
LAZY = '''
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, FCOS, ResNet
from detectron2.modeling.backbone import BasicStem
from detectron2.modeling.meta_arch.fcos import FCOSHead

model = L(FCOS)(
    backbone=L(FPN)(
        bottom_up=L(ResNet)(
            stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
            stages=L(ResNet.make_default_stages)(depth=18, norm="FrozenBN"),
            out_features=["res3", "res4", "res5"], freeze_at=2),
        in_features=["res3", "res4", "res5"], out_channels=16),
    head=L(FCOSHead)(input_shape=[ShapeSpec(channels=16)] * 3, num_classes="${..num_classes}",
                     conv_dims=[16]),
    num_classes=80, pixel_mean=[103.53, 116.28, 123.675], pixel_std=[1.0, 1.0, 1.0])
train = dict(init_checkpoint="")
'''


@pytest.fixture
def library(need_engine: Callable[[str], None]) -> None:
    need_engine("detectron2")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were not installed."""
    monkeypatch.delenv(CHECKOUT, raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "detectron2", None)


def settings(**given: Any) -> DetectorConfig:
    return DetectorConfig.model_validate(
        {"engine": "detectron2", "weights": "none", "image_size": 128, "fpn_channels": 32,
         "anchor_sizes": (16, 32, 64, 100), **given})


def make(cfg: DetectorConfig, backbone: str = "mobilenetv3_small_050", classes: int = 2) -> Any:
    torch.manual_seed(0)
    return detectors.build(cfg, classes, classifiers.build(
        ClassifierConfig(backbone=backbone, weights="none", image_size=64), classes))


def written(folder: Path, text: str, name: str = "net.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def refusal(**given: Any) -> str:
    with pytest.raises(ConfigError) as error:
        make(detectors.resolved(settings(**given)))
    return str(error.value)


def test_missing_says_what_to_do_before_anything_is_trained(
        nowhere: None, capsys: pytest.CaptureFixture[str]) -> None:
    config = load(None, ["detector=detectron2", "stages.mimo.manifest=no/such/data"])
    with pytest.raises(ImportError) as error:
        train(config, ["mimo"])
    lines = str(error.value).splitlines()
    assert len(lines) == 2 and CHECKOUT in lines[0]
    assert "clone" in lines[1].lower() and "pip install -e '.[detectron2]'" in lines[1]
    parser = command.argparse.ArgumentParser()
    assert command.run(lambda _: train(config, ["mimo"]) and 0, parser, []) == 2
    shown = capsys.readouterr().err
    assert shown == f"error: {lines[0]}\n{lines[1]}\n"


def test_a_folder_that_is_no_checkout(nowhere: None, monkeypatch: pytest.MonkeyPatch,
                                      tmp_path: Path) -> None:
    monkeypatch.setenv(CHECKOUT, str(tmp_path))
    with pytest.raises(ImportError) as error:
        import_library()
    lines = str(error.value).splitlines()
    assert len(lines) == 2 and str(tmp_path) in lines[0] and "no checkout" in lines[0]


def test_a_checkout_without_what_it_needs(nowhere: None, monkeypatch: pytest.MonkeyPatch,
                                          tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "detectron2")
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("import no_such_package\n")
    monkeypatch.setenv(CHECKOUT, str(tmp_path))
    with pytest.raises(ImportError) as error:
        import_library()
    assert str(error.value).splitlines() == [
        "detectron2 needs no_such_package, which is not installed.",
        "Type: pip install -e '.[detectron2]'"]
    assert str(tmp_path) not in sys.path


def test_its_settings_are_not_for_torchvision() -> None:
    for given in ({"config": "net.yaml"}, {"weights": "R-50.pkl"}):
        with pytest.raises(ConfigError, match=r"detector\.engine=detectron2"):
            detectors.resolved(settings(engine="torchvision", **given))


class Evil:
    """Pickled, it asks for a function to be called."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def test_a_pickle_is_read_for_its_arrays_and_never_run(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.pkl"
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    file.write_bytes(pickle.dumps({"model": {"a.weight": weight}, "__author__": "somebody",
                                   "matching_heuristics": True}, protocol=2))
    held = read_zoo(file)
    assert (held.author, held.by_suffix) == ("somebody", True)
    assert held.state["a.weight"].tolist() == weight.tolist()
    file.write_bytes(pickle.dumps({"blobs": {"conv1_w": weight, "conv1_w_momentum": weight,
                                             "lr": 0.1}}))
    held = read_zoo(file)
    assert (held.author, held.by_suffix, list(held.state)) == ("Caffe2", True, ["conv1_w"])
    for evil, reason in ((Evil(), r"it would run builtins\.print"),
                         ({"model": {"a.weight": Evil()}}, r"it would run builtins\.print"),
                         ({"model": {"a": np.array([Evil()], object)}}, "values of type O8"),
                         ({"model": {"a": np.zeros(2, "f4,f4")}}, "values of type V8"),
                         ({"model": {3: weight}}, "no named weights"),
                         ({"blobs": [weight]}, "no named weights")):
        file.write_bytes(pickle.dumps(evil))
        with pytest.raises(BackboneError, match=reason):
            read_zoo(file)
    assert capsys.readouterr().out == ""
    torch.save({"model": {"a.weight": torch.ones(2)}}, tmp_path / "model.pth")
    assert read_zoo(tmp_path / "model.pth").state["a.weight"].tolist() == [1, 1]


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("kind", ["<f4", ">f4", "f8", "f2", "i8", "u1", "?"])
def test_arrays_of_every_kind_come_back(tmp_path: Path, kind: str, protocol: int) -> None:
    array = np.asfortranarray(np.arange(6).reshape(2, 3)).astype(kind)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": array, "b": array[:, :0]}, protocol))
    held = read_zoo(tmp_path / "a.pkl").state
    np.testing.assert_array_equal(held["a"].numpy(), array)
    assert held["b"].shape == (2, 0)


def test_an_array_cannot_become_one_of_objects(tmp_path: Path) -> None:
    """Filled with a number, then told to hold a pointer: NumPy's own reader would follow it."""
    whole = pickle.dumps({"a": np.arange(1), "b": np.dtype("i8")}, protocol=2)
    at = whole.rindex(b"s.") if whole.endswith(b"s.") else whole.rindex(b"u.")
    # The type is the last thing made: give it the state of a record with an object in it.
    state = b"(K\x03X\x01\x00\x00\x00|NX\x01\x00\x00\x00x\x85}K\x08K\x01K\x3ftb"
    (tmp_path / "a.pkl").write_bytes(whole[:at] + state + whole[at:])
    with pytest.raises(BackboneError, match="compound type"):
        read_zoo(tmp_path / "a.pkl")


def test_names_of_a_resnet() -> None:
    state = {"conv1.weight": torch.arange(3.0).view(1, 3, 1, 1), "bn1.bias": torch.zeros(1),
             "layer1.0.conv2.weight": torch.zeros(1), "layer4.2.bn3.running_var": torch.ones(1),
             "layer2.0.downsample.0.weight": torch.zeros(1),
             "layer2.0.downsample.1.bias": torch.zeros(1)}
    renamed = detectron2_names(state, flipped=True)
    assert list(renamed) == ["stem.conv1.weight", "stem.conv1.norm.bias", "res2.0.conv2.weight",
                             "res5.2.conv3.norm.running_var", "res3.0.shortcut.weight",
                             "res3.0.shortcut.norm.bias"]
    assert renamed["stem.conv1.weight"].flatten().tolist() == [2, 1, 0]


def test_losses_are_detectron2s_own(library: None) -> None:
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    model = make(settings(family="retinanet")).train()
    image, boxes = torch.rand(3, 64, 64), torch.tensor([[10.0, 20, 40, 50]])
    ours = model.losses([image], [{"boxes": boxes, "labels": torch.tensor([2])}])
    twice = nn.functional.interpolate(image[None], (128, 128), mode="bilinear")[0] * 255
    model.network.loss_normalizer.fill_(100)
    with EventStorage():
        theirs = model.network([{"image": twice, "instances": Instances(
            (128, 128), gt_boxes=Boxes(boxes * 2), gt_classes=torch.tensor([1]))}])
    assert {k: v.item() for k, v in ours.items()} == {k: v.item() for k, v in theirs.items()}


@pytest.mark.parametrize(("text", "name"), [(FILE, "net.yaml"), (LAZY, "net.py")])
def test_files_become_settings_that_need_no_file(library: None, text: str, name: str,
                                                 tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(text)
    based = text if name == "net.py" else "_BASE_: base.yaml\n"
    cfg = detectors.resolved(settings(config=written(tmp_path, based, name)))
    assert isinstance(cfg.config, dict)
    again = DetectorConfig.model_validate_json(cfg.model_dump_json())
    assert again == cfg and detectors.resolved(again) is again
    model = make(cfg)
    assert model.network.num_classes == 2 and not model._boxes_shared
    assert all(p.requires_grad for p in model.parameters())
    assert (model.network.pixel_std > 50).all()  # from random weights; the file says 1
    assert make(cfg.model_copy(update={"class_agnostic": True})).network.num_classes == 1
    told = detectors.unused_settings(settings(config="x", aspect_ratios=(1.0,), fpn_channels=64))
    assert told == ["fpn_channels", "anchor_sizes", "aspect_ratios"]


def test_refusals_say_what_to_write(library: None, tmp_path: Path) -> None:
    assert "fasterrcnn or retinanet" in refusal(family="fcos")
    assert "configs/COCO-Detection" in refusal(config=tmp_path / "no.yaml")
    assert "no such file" in refusal(weights=str(tmp_path / "no.pkl"))
    assert "NO_SUCH_KEY" in refusal(config=written(tmp_path, "MODEL: {NO_SUCH_KEY: 1}"))
    proposals = FILE.replace(": RetinaNet", ": ProposalNetwork")
    proposals += "  RPN: {IN_FEATURES: [p3, p4, p5, p6, p7]}\n"
    assert "ProposalNetwork is not" in refusal(config=written(tmp_path, proposals))
    norm = LAZY.replace('num_classes=80', 'num_classes=80, head_norm=lambda c: None')
    assert "head_norm is a function" in refusal(config=written(tmp_path, norm, "net.py"))
    assert "can read" in refusal(config=written(tmp_path, "model = 1 / 0", "net.py"))


def test_a_model_folder_builds_nothing_but_networks(library: None, tmp_path: Path) -> None:
    for target in ("os.system", "torch.load", "torch.nn.modules.module.torch.load",
                   "detectron2.modeling.backbone.fpn.torch.hub.load"):
        assert "may build no other" in refusal(config={"model": {"_target_": target}})


def test_weights_are_those_that_detectron2s_own_loader_puts_in(library: None,
                                                               tmp_path: Path) -> None:
    from detectron2.checkpoint import DetectionCheckpointer

    cfg = detectors.resolved(settings(config=written(tmp_path, FILE)))
    trained, theirs = make(cfg, classes=3), make(cfg)
    zoo = {name: value.numpy() + 1 for name, value in trained.network.state_dict().items()
           if "pixel" not in name and name != "loss_normalizer"}
    endings = {name.removeprefix("backbone.bottom_up."): value for name, value in zoo.items()
               if "bottom_up" in name}
    for i, held in enumerate(({"model": zoo, "__author__": "zoo"},
                              {"model": endings, "__author__": "x", "matching_heuristics": True})):
        file = tmp_path / f"{i}.pkl"
        file.write_bytes(pickle.dumps(held))
        ours = make(cfg.model_copy(update={"weights": str(file)}), "torchvision:resnet18")
        DetectionCheckpointer(theirs.network).load(str(file))
        state = theirs.network.state_dict()
        for name, value in ours.network.state_dict().items():
            if name in held["model"] or name.removeprefix("backbone.bottom_up.") in endings:
                assert torch.equal(value, state[name]) or "cls_score" in name, name
        assert (ours.network.pixel_std == 1).all()  # the zoo's weights hold the deviation
    file.write_bytes(pickle.dumps({"model": {"other": zoo["head.cls_score.bias"]}}))
    with pytest.raises(BackboneError, match="none of its tensors fits"):
        make(cfg.model_copy(update={"weights": str(file)}))


def test_weights_that_cannot_be_fetched_warn_and_start_at_random(library: None,
                                                                 tmp_path: Path) -> None:
    text = FILE + f"  WEIGHTS: {tmp_path / 'gone.pkl'}\n"
    cfg = settings(config=written(tmp_path, text), weights="auto")
    with pytest.warns(UserWarning, match=r"gone\.pkl could not be had .*detector\.weights=FILE"):
        model = make(detectors.resolved(cfg))
    assert (model.network.pixel_std > 50).all()
