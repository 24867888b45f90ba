"""A grid file, and what must hold before the first of its variants is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from musicon.datasets.command import counted
from musicon.datasets.records import ImageRecord, Manifest, UserError
from musicon.detect import adaptation
from musicon.detect.benchmarks.reuse import with_ancestors
from musicon.detect.config import Config, ConfigError, Settings, load
from musicon.detect.evaluation_run import BAR_NAMES, select_split
from musicon.detect.settings import nearest
from musicon.detect.stage_checks import check_data, data_of

FIGURES = ("picture_top1", "crop_top1", "agnostic_ap50", "false_alarms")


class Grid(Settings):
    """A grid file."""

    base: Path
    """Settings that the variants share."""
    set: tuple[str, ...] = ()
    """Overrides that the variants share."""
    stages: tuple[str, ...] = ()
    """Those to train; the last one's model is scored. All that ``base`` has, if none is named."""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    tests: dict[str, Path] = Field(min_length=1)
    """Name -> manifest whose test split is scored."""
    whole: tuple[str, ...] = ()
    """Tests that are scored on all splits, as no stage learns from them or is chosen on them."""
    figures: tuple[str, ...] = FIGURES
    variants: dict[str, tuple[str, ...]] = Field(min_length=1)
    """Name -> overrides, such as ``stages.mimo.bank=data/bank``; the first is compared with."""
    reuse: tuple[Path, ...] = ()
    """Outputs of ``benchmark.py stages`` or of other grids' variants: stages that are trained there
    with the same settings, data and seed are taken over."""
    output: Path

    @field_validator("variants", mode="before")
    @classmethod
    def _names_are_text(cls, value: Any) -> Any:
        """YAML reads some words as truth values, and each name becomes a folder."""
        for name in value if isinstance(value, Mapping) else ():
            if not isinstance(name, str):
                raise ValueError(f"YAML reads the name of a variant as {name!r}; write it in "
                                 "quotes, as 'on' and 'off'")
            if name in ("", ".", "..") or "/" in name or "\\" in name:
                raise ValueError(f"{name!r} names a folder of the output, too: it may have no "
                                 "slash and not consist of dots alone")
        return value

    @model_validator(mode="after")
    def _known_names(self) -> Grid:
        """A typing error would be told after the training, or never."""
        for key, names, known in (("figures", self.figures, BAR_NAMES),
                                  ("whole", self.whole, tuple(self.tests))):
            if unknown := [name for name in names if name not in known]:
                raise ValueError(f"{key}: {unknown[0]!r} is none of {', '.join(known)}")
        return self

    def split_of(self, test: str) -> str:
        """The split of a test that is scored."""
        return "all" if test in self.whole else "test"

    def stages_of(self, config: Config) -> tuple[str, ...]:
        """The stages that a variant of these settings trains."""
        return self.stages or config.stage_names()


def read_grid(path: Path) -> Grid:
    """Read a grid file.

    Raises:
        ConfigError: Naming the key that is wrong, or saying that the file is none.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Grid.model_validate(document)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not a readable grid file ({' '.join(str(error).split())})"
                          ) from None
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, f['loc'])) or 'the file'}: {f['msg']}"
                  for f in error.errors()]
        raise ConfigError(f"{path}: {'; '.join(faults)}; a grid has base, tests, variants and "
                          "output, as configs/benchmarks/bank-classifier.yaml has") from None


def check(grid: Grid, variant: str) -> None:
    """Refuse a variant that could not be trained or scored, or would be scored on what it has seen.

    Raises:
        UserError: Saying what is wrong with the grid or its data.
    """
    config = load(grid.base, [*grid.set, *grid.variants[variant]])
    names = grid.stages_of(config)
    for name in names:
        if name not in config.stages:
            raise ConfigError(f"stages: no stage of {grid.base} is named {name!r}; "
                              f"{nearest(name, list(config.stages))}")
    config = adaptation.resolved(config, names)
    for name in names:
        check_data(config, name)
    for test, path in grid.tests.items():
        scored = select_split(Manifest.read(path), grid.split_of(test), path)
        if test in grid.whole:
            _check_unseen(test, scored, config, names)


def _check_unseen(test: str, scored: Manifest, config: Config, names: Sequence[str]) -> None:
    """Refuse to score pictures that a stage learns from or is chosen on, wherever it has them."""
    pictures = {_content(scored, record) for record in scored.images}
    for stage in with_ancestors(config, names):
        for key, path in data_of(config, stage):
            data = Manifest.read(path)
            seen = [record for split in ("train", "val")
                    for record in data.select(split=split).images]
            both = pictures & {content for record in seen for content in (
                _content(data, record), record.extra.get("content_sha256"))}
            if both:
                raise UserError(f"whole: {counted(len(both), 'picture')} of {test} "
                                f"{'is' if len(both) == 1 else 'are'} in {path}, which "
                                f"stages.{stage}.{key} reads, so that its test split alone may be "
                                "scored; take it out of whole")


def _content(manifest: Manifest, record: ImageRecord) -> str:
    """What tells a picture apart: its check sum, or where none is known its file."""
    return record.sha256 or str(manifest.path(record).resolve())
