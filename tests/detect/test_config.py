"""Settings: what is read, what is refused, and how the refusal helps."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from musicon.detect.config import (
    Config,
    ConfigError,
    FitConfig,
    StageConfig,
    differences,
    dump,
    load,
    parse,
)

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted([*CONFIGS.glob("stages/*.yaml"), *CONFIGS.glob("demo/*.yaml")])


def write(folder: Path, text: str) -> Path:
    file = folder / "settings.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_file_then_overrides_then_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, "seed: 3\nclassifier: {image_size: 96}\n"
                           "stages: {mimo: {manifest: data/mimo}}\n")
    config = load(file, ["seed=4", "stages.mimo.classifier.steps=7",
                         "detector.anchor_sizes=[8, 16]"])
    assert config.seed == 4
    assert config.classifier.image_size == 96
    assert config.classifier.dropout == Config().classifier.dropout
    assert config.stages["mimo"].classifier.steps == 7
    assert config.detector.anchor_sizes == (8.0, 16.0)
    assert config.stages["mimo"].manifest == Path("data/mimo")


def test_values_are_yaml() -> None:
    config = load(None, ["stages.mimo.manifest=x", "stages.mimo.classifier.ema_decay=null",
                         "stages.mimo.classifier.learning_rate=1e-3",
                         "stages.mimo.composites={share: 0.5, scale: [0.1, 0.2]}"])
    fit = config.stages["mimo"].classifier
    assert fit.ema_decay is None
    assert fit.learning_rate == 0.001
    assert config.stages["mimo"].composites is not None
    assert config.stages["mimo"].composites.scale == (0.1, 0.2)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed: .*greater than or equal to 0"):
        load(None, ["seed=-1"])


@pytest.mark.parametrize(("override", "words"), [
    ("detector.anchor_sizes=[]", "detector.anchor_sizes: write one or more numbers above 0"),
    ("detector.anchor_sizes=[16, -3]", "detector.anchor_sizes: write one or more numbers above 0"),
    ("detector.aspect_ratios=[0]", "detector.aspect_ratios: write one or more numbers above 0"),
    ("stages.mimo.composites={scale: [1.4, 0.1]}", "scale: write the smaller share first"),
    ("stages.mimo.composites={scale: [0, 0.1]}", "scale: write the smaller share first")])
def test_sizes_that_nothing_can_have_are_refused(override: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(None, ["stages.mimo.manifest=x", override])
    assert words in str(error.value)


def test_engine_by_name_keeps_the_other_detector_settings(tmp_path: Path) -> None:
    file = write(tmp_path, "detector: {image_size: 200}\n")
    detector = load(file, ["detector=detectron2"]).detector
    assert (detector.engine, detector.image_size) == ("detectron2", 200)
    file = write(tmp_path, "detector: detectron2\n")
    detector = load(file, ["detector.image_size=210"]).detector
    assert (detector.engine, detector.image_size) == ("detectron2", 210)


def test_a_banks_path_stays_where_another_of_its_settings_is_given(tmp_path: Path) -> None:
    file = write(tmp_path, "stages: {mimo: {manifest: m, bank: data/bank}}\n")
    bank = load(file, ["stages.mimo.bank.probability=0.25"]).stages["mimo"].bank
    assert bank is not None and (str(bank.path), bank.probability) == ("data/bank", 0.25)


@pytest.mark.parametrize("override, parts", [
    ("classifier.image_sise=3", ["classifier.image_sise", "did you mean classifier.image_size?"]),
    ("steps=3", ["steps: unknown", "did you mean stages.mimo.classifier.steps?"]),
    ("stages.mimo.detector.family=fcos", ["stages.mimo.detector.family", "detector.family?"]),
    ("stages.mimo.composites.shere=0", ["did you mean stages.mimo.composites.share?"]),
    ("xyzzy=1", ["xyzzy", "there are seed, device"]),
    ("stages.mimmo.classifier.steps=3", ["mimmo", "did you mean mimo?"]),
    ("classifier.image_size=7", ["classifier.image_size", "greater than or equal to 32", "7"]),
    ("detector.family=yolo", ["detector.family", "'retinanet'", "'yolo'"]),
    ("stages.mimo.parent=google", ["stages.mimo.parent", "google", "there are mimo"]),
    ("stages.mimo.parent=mimo", ["circle"]),
    ("stages.mimo.adaptation=[{name: teacher, targets: [a]}, {name: teacher, targets: [b], "
     "models: [detector]}]", ["stages.mimo.adaptation", "teacher is given twice for the detector"]),
    ("devices=4", ["devices", "torchrun --nproc-per-node 4 tools/train_net.py"]),
    ("seed", ["--set seed", "write --set key.key=value"]),
    ("seed=[1", ["--set seed=[1", "not YAML"]),
])
def test_refusals_name_the_key_and_the_mend(tmp_path: Path, override: str,
                                            parts: list[str]) -> None:
    file = write(tmp_path, "stages: {mimo: {manifest: data/mimo}}\n")
    with pytest.raises(ConfigError) as caught:
        load(file, [override])
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unusable_files(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("seed: 0")
    with pytest.raises(ConfigError, match=r"no such settings file; there are .*other\.yaml"):
        load(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="not a readable YAML file"):
        load(write(tmp_path, "a: [1"))
    with pytest.raises(ConfigError, match="found a list"):
        load(write(tmp_path, "- 1"))
    assert load(write(tmp_path, "")) == Config()


def test_stage_names_put_parents_first() -> None:
    stage = StageConfig(manifest=Path("x"))
    config = Config(stages={
        "extra": stage.model_copy(update={"parent": "cytomine"}),
        "cytomine": stage.model_copy(update={"parent": "google"}),
        "google": stage.model_copy(update={"parent": "mimo"}),
        "mimo": stage,
    })
    assert config.stage_names() == ("mimo", "google", "cytomine", "extra")


def test_differences_are_dotted() -> None:
    old = Config(stages={"mimo": StageConfig(manifest=Path("x"))}).model_dump(mode="json")
    new = load(None, ["stages.mimo.manifest=x", "stages.mimo.classifier.steps=1", "seed=2"])
    assert differences(old, new.model_dump(mode="json")) == [
        "seed: 0 -> 2", f"stages.mimo.classifier.steps: {FitConfig().steps} -> 1"]


@given(st.builds(
    Config,
    seed=st.integers(0, 2**31), name=st.text(max_size=20),
    stages=st.dictionaries(st.sampled_from(["mimo", "google"]), st.builds(
        StageConfig, parent=st.none(), manifest=st.just(Path("data/x")),
        classifier=st.builds(FitConfig, steps=st.integers(0, 10**6),
                             learning_rate=st.floats(1e-12, 10)),
        detector=st.just(FitConfig()), rehearsal_share=st.floats(0, 0.99),
        composites=st.none(), pseudo_boxes=st.none())),
))
def test_dump_then_parse_is_the_same(config: Config) -> None:
    assert parse(yaml.safe_load(dump(config))) == config


@pytest.mark.parametrize("file", SHIPPED, ids=lambda p: p.name)
def test_shipped_settings_are_valid(file: Path) -> None:
    config = load(file)
    assert config.stage_names()
