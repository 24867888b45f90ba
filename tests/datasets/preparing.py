"""What tests of ``prepare_data.py`` share."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from musicon.datasets import command

ROOT = Path(__file__).resolve().parent.parent.parent
TOOL = ROOT / "tools" / "prepare_data.py"
Draw = Callable[..., Path]


def tool(*arguments: object) -> int:
    """Run the tool in this process."""
    spec = importlib.util.spec_from_file_location("prepare_data_tool", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return command.run(module.main, module.parser(), [str(a) for a in arguments])


def tree(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
