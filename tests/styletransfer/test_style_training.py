from __future__ import annotations

import csv
import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import WIDTHS, write_networks

from musicon.datasets import command
from musicon.datasets.records import ImageRecord, Manifest
from musicon.styletransfer.decoder import Decoder
from musicon.styletransfer.encoder import Encoder, random_state
from musicon.styletransfer.gram import grams, style_loss
from musicon.styletransfer.methods import build
from musicon.styletransfer.objectives import DecoderLosses, PerceptualLosses
from musicon.styletransfer.training import Pictures
from musicon.styletransfer.weights import StyleError

TOOL = Path(__file__).parents[2] / "tools" / "build_bank.py"


def tool(*words: object) -> int:
    spec = importlib.util.spec_from_file_location("build_bank", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return command.run(module.main, module.parser(), [str(word) for word in words])


def write_pictures(folder: Path, splits: list[str], seed: int = 0) -> Path:
    """Blurred noise, of different sizes; what is of the test split is black."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    records = []
    for number, split in enumerate(splits):
        picture = rng.integers(0, 256, (40 + number, 50, 3), np.uint8)
        picture = cv2.GaussianBlur(picture, (5, 5), 2)
        name = f"images/{number}.png"
        cv2.imwrite(str(folder / name), picture * (split != "test"))
        records.append(ImageRecord(number + 1, name, 50, 40 + number, split=split))
    Manifest(folder, (), tuple(records)).write(folder)
    return folder


@pytest.fixture
def material(tmp_path: Path) -> dict[str, Any]:
    return {"content": write_pictures(tmp_path / "photos", ["train", "train", "test"]),
            "styles": write_pictures(tmp_path / "paintings", ["train", "val"], 1),
            "encoder": write_networks(tmp_path)["encoder"], "out": tmp_path / "out"}


def decoder_words(material: dict[str, Any], out: Path, steps: int) -> list[object]:
    return ["train-decoder", "--encoder", material["encoder"], "--content", material["content"],
            "--styles", material["styles"], "--out", out, "--steps", steps, "--image-size", 16,
            "--batch-size", 2, "--checkpoint-every", 5, "--learning-rate", 0.003, "--quiet"]


def test_only_training_pictures_are_learnt_from(material: dict[str, Any]) -> None:
    pictures = Pictures(material["content"], 24)
    assert [file.name for file in pictures.files] == ["0.png", "1.png"]
    images, files = pictures.batch(16, 1, 2)
    assert images.shape == (16, 3, 24, 24) and images.min() >= 0 and images.max() <= 1
    assert images.amax((1, 2, 3)).min() > 0.2  # none is black
    assert torch.equal(images, pictures.batch(16, 1, 2)[0])
    assert not torch.equal(images, pictures.batch(16, 1, 3)[0])
    assert {file.name for file in files} == {"0.png", "1.png"}
    only_test = write_pictures(material["out"], ["test"])
    with pytest.raises(StyleError, match="none of its 1 images is of the training split"):
        Pictures(only_test, 24)


def test_a_decoder_is_trained_and_serves_adain(material: dict[str, Any],
                                               capsys: pytest.CaptureFixture[str]) -> None:
    out = material["out"]
    assert tool(*decoder_words(material, out, 40)) == 0
    assert "wrote" in capsys.readouterr().out
    with (out / "losses.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == list(range(1, 41))
    totals = [float(row["content"]) + float(row["style"]) for row in rows]
    assert np.mean(totals[-10:]) < 0.7 * np.mean(totals[:10])
    assert cv2.imread(str(out / "preview.jpg")).shape == (48, 64, 3)
    assert json.loads((out / "training.json").read_text())["depth"] == "relu4_1"
    method = build("adain", {"encoder": material["encoder"],
                             "decoder": str(out / "decoder.safetensors")})
    assert method(torch.rand(1, 3, 20, 20), torch.rand(1, 3, 9, 9)).shape == (1, 3, 20, 20)


def test_a_killed_run_ends_with_the_same_bytes(material: dict[str, Any], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert tool(*decoder_words(material, whole, 90)) == 0
    words = [str(word) for word in decoder_words(material, killed, 90)]
    process = subprocess.Popen([sys.executable, str(TOOL), *words])
    deadline = time.monotonic() + 60
    while not (killed / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "decoder.safetensors").exists()
    assert tool(*words) == 0
    assert (killed / "decoder.safetensors").read_bytes() == \
        (whole / "decoder.safetensors").read_bytes()


def test_other_settings_do_not_go_on_but_more_steps_do(material: dict[str, Any],
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    words = decoder_words(material, material["out"], 2)
    assert tool(*words) == 0
    assert tool(*words, "--batch-size", 3) == 2
    assert "other settings (batch_size)" in capsys.readouterr().err
    assert tool(*words, "--batch-size", 3, "--fresh") == 0
    assert tool(*words, "--batch-size", 3, "--steps", 4) == 0
    assert (material["out"] / "losses.csv").read_text().count("\n") == 5
    assert tool(*words, "--batch-size", 3, "--steps", 3) == 2
    assert "learnt for 4 steps" in capsys.readouterr().err
    (material["out"] / "checkpoint.pt").write_bytes(b"broken")
    assert tool(*words) == 2
    assert "--fresh" in capsys.readouterr().err


def test_a_style_network_is_trained_and_serves_johnson(material: dict[str, Any]) -> None:
    out, style = material["out"], material["styles"] / "images" / "0.png"
    words = ["train-style", "--style", style, "--encoder", material["encoder"], "--content",
             material["content"], "--out", out, "--steps", 12, "--image-size", 16, "--batch-size",
             1, "--style-size", 32, "--quiet"]
    assert tool(*words) == 0
    with (out / "losses.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert float(rows[-1]["style"]) < float(rows[0]["style"])
    method = build("johnson", {"weights": str(out / "network.safetensors")})
    content = torch.rand(1, 3, 18, 21)
    assert method(content, content).shape == content.shape
    assert tool(*words, "--image-size", 18) == 2


def test_a_loss_that_is_no_number_stops_the_run(material: dict[str, Any],
                                                capsys: pytest.CaptureFixture[str]) -> None:
    words = decoder_words(material, material["out"], 3)
    assert tool(*words, "--learning-rate", 1e30) == 2
    error = capsys.readouterr().err
    assert "not finite" in error and ".png" in error


def test_losses_of_a_decoder_are_the_papers() -> None:
    encoder = Encoder(random_state(0, WIDTHS), depth="relu2_1")
    decoder = Decoder.mirror(encoder)
    content, style = torch.rand(2, 3, 12, 12), torch.rand(2, 3, 10, 14)
    maps, wanted = encoder(content), encoder(style)
    def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.mean((2, 3), keepdim=True), (x.var((2, 3), correction=0, keepdim=True)
                                              + 1e-5).sqrt()
    (mean, deviation), (its_mean, its_deviation) = (moments(m["relu2_1"]) for m in (maps, wanted))
    aim = (maps["relu2_1"] - mean) / deviation * its_deviation + its_mean
    found = encoder(decoder(aim))
    expected = sum(F.mse_loss(mine, its) for layer in encoder.layers
                   for mine, its in zip(moments(found[layer]), moments(wanted[layer]),
                                        strict=True))
    losses = DecoderLosses(decoder, encoder, style_weight=3.0)(content, style)
    assert losses["content"].item() == pytest.approx(
        F.mse_loss(found["relu2_1"], aim).item(), rel=1e-3)
    assert losses["style"].item() == pytest.approx(3 * torch.as_tensor(expected).item(), rel=1e-3)


def test_perceptual_losses_by_the_formula() -> None:
    encoder = Encoder(random_state(0, WIDTHS), pooling="average")
    content, style = torch.rand(2, 3, 16, 16), torch.rand(1, 3, 20, 20)
    same = PerceptualLosses(torch.nn.Identity(), encoder, style, style_weight=2.0)(content)
    assert same["content"].item() == 0
    wanted = grams(encoder(style))
    zeros = {layer: torch.zeros_like(value) for layer, value in wanted.items()}
    expected = 2 * style_loss(grams(encoder(content)), wanted).mean() / style_loss(wanted, zeros)
    assert same["style"].item() == pytest.approx(expected.item(), rel=1e-4)
