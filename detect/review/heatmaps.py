"""Heat maps that ``tools/explain.py`` wrote, as fields of a review.

FiftyOne itself is handed in by ``fiftyone_app``, the one file that imports it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musicon.datasets.records import UserError
from musicon.detect.outputs import EXPLANATIONS_NAME
from musicon.detect.review import fiftyone_look as look

HeatFiles = Mapping[str, Mapping[str, Path]]
"""Real path of a picture -> method -> its grey PNG."""


class HeatmapError(UserError):
    """Heat maps that cannot be shown; the message says what to do."""


def read_heatmaps(folder: Path) -> HeatFiles:
    """Where the heat maps of each picture are.

    Raises:
        HeatmapError: Not a folder of ``explain.py``, or one without heat maps.
    """
    file = folder / EXPLANATIONS_NAME
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["images"]
        found = {os.path.realpath(folder / row["file"]):
                 {method: Path(os.path.abspath(folder / heat))
                  for method, heat in row["heat"].items()} for row in rows}
    except FileNotFoundError:
        raise HeatmapError(f"{folder}: no {EXPLANATIONS_NAME} there; make it with python "
                           f"tools/explain.py --images FOLDER --out {folder}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise HeatmapError(f"{file}: not what tools/explain.py writes; make it anew") from None
    if not any(found.values()):
        raise HeatmapError(f"{file}: it lists no heat maps; make some with python tools/explain.py "
                           "--method visualbackprop")
    return found


def attach(fo: Any, dataset: Any, heats: HeatFiles) -> int:
    """Give the pictures of a review their heat maps, one field a method; earlier ones go.

    Returns:
        Pictures that got some.

    Raises:
        HeatmapError: None of the pictures is in the review.
    """
    columns: dict[str, dict[str, Any]] = {}
    matched = set()
    for key, path in zip(*dataset.values(["id", "filepath"]), strict=True):
        for method, file in heats.get(os.path.realpath(path), {}).items():
            matched.add(key)
            columns.setdefault(look.heat_field(method), {})[key] = fo.Heatmap(map_path=str(file))
    if not matched:
        raise HeatmapError(f"none of the {len(heats):,} explained pictures is in the review "
                           f"{dataset.name}; open them with --predictions or --data")
    for field, column in columns.items():
        dataset.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Heatmap)
        dataset.set_field(field, None).save(field)
        dataset.set_values(field, column, key_field="id")
    dataset.app_config.sidebar_groups = look.sidebar(fo, dataset)
    dataset.save()
    return len(matched)
