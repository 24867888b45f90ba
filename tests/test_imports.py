"""Imports point inward, optional packages stay optional, and nothing happens at import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "datasets": {"datasets"},
    "styletransfer": {"datasets", "styletransfer"},
    "detect": {"datasets", "detect"},
    "tools": {"datasets", "styletransfer", "detect"},
}
# The files that speak to an optional package, each inside functions only.
SPEAKS_TO: dict[str, set[str]] = {
    "captum": {"detect/explanations/grad_cam.py", "detect/explanations/integrated_gradients.py"},
    "fiftyone": {"datasets/sources/openimages.py", "detect/review/fiftyone_app.py"},
    "detectron2": {"detect/detectors/detectron2_files.py", "detect/detectors/detectron2_rcnn.py"},
    "cytomine": {"datasets/sources/cytomine.py", "detect/review/cytomine_upload.py"},
    "ray": {"styletransfer/bank_ray.py"},
}
HEAVY_FOR_DATA = {"lightning", "timm", "matplotlib", "tensorboard"}


def source_files() -> list[Path]:
    return sorted(file for folder in MAY_IMPORT for file in (ROOT / folder).rglob("*.py"))


def called(node: ast.Call) -> str:
    """The last name of what a call calls."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def imports(tree: ast.AST, inside: bool = False) -> Iterator[tuple[str, int, bool]]:
    """Each import's full name, line, and whether a function holds it (lazy import)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, inside
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                yield f"{base}.{alias.name}", node.lineno, inside
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value, node.lineno, inside
        in_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from imports(node, inside or in_function)


def faults(folder: str, name: str, text: str) -> list[str]:
    """What breaks the rules in one file, as ``file:line: sentence``."""
    found = []
    for target, line, lazy in imports(ast.parse(text)):
        where, parts = f"{name}:{line}", target.split(".")
        if target.startswith("."):
            found.append(f"{where}: relative import {target}; write musicon.{folder}...")
        if parts[0] in MAY_IMPORT and parts[0] != "datasets":
            found.append(f"{where}: {target}; write musicon.{target}")
        if parts[0] == "musicon" and len(parts) > 1 and parts[1] not in MAY_IMPORT[folder]:
            found.append(f"{where}: {folder} may not import {target}")
        if parts[0] in SPEAKS_TO:
            if name not in SPEAKS_TO[parts[0]]:
                found.append(f"{where}: only {sorted(SPEAKS_TO[parts[0]])} may import {parts[0]}")
            elif not lazy:
                found.append(f"{where}: import {parts[0]} inside the function that uses it")
        if folder == "datasets" and parts[0] in HEAVY_FOR_DATA and not lazy:
            found.append(f"{where}: {parts[0]} at the top of a data module")
    return found


def test_the_files_are_found() -> None:
    names = {file.relative_to(ROOT).as_posix() for file in source_files()}
    assert {"datasets/records.py", "detect/config.py", "tools/setup_review.py"} <= names


def test_imports_point_inward_and_optional_packages_are_lazy() -> None:
    found = []
    for file in source_files():
        name = file.relative_to(ROOT).as_posix()
        found += faults(name.split("/")[0], name, file.read_text(encoding="utf-8"))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("folder", "text"), [
    ("datasets", "from musicon.detect.config import Config"),
    ("datasets", "def f():\n    import musicon.detect.config"),
    ("styletransfer", "import musicon.detect"),
    ("detect", "from musicon.styletransfer import bank"),
    ("detect", "from . import config"),
    ("tools", "import detect.config"),
    ("detect", "import fiftyone as fo"),
    ("detect", "def f():\n    import fiftyone"),
    ("detect", "import importlib\nfo = importlib.import_module('fiftyone')"),
    ("datasets", "import lightning"),
])
def test_a_forbidden_import_is_seen(folder: str, text: str) -> None:
    assert faults(folder, f"{folder}/example.py", text)


def test_the_one_file_may_import_lazily_only() -> None:
    file = "detect/review/fiftyone_app.py"
    assert not faults("detect", file, "def f():\n    import fiftyone as fo\n    return fo")
    assert faults("detect", file, "import fiftyone as fo")


# Run in a fresh interpreter: imports everything of ours and reports what else happened.
WATCHER = """
import importlib, importlib.util, json, random, sys
sys.dont_write_bytecode = True
import numpy as np, torch, torchvision, lightning, timm, albumentations, cv2, sklearn.metrics
import matplotlib, scipy.optimize, pydantic, requests, yaml, PIL.Image
EVENTS = {"socket.connect", "socket.getaddrinfo", "socket.bind", "subprocess.Popen", "os.system",
          "os.posix_spawn", "os.fork", "os.exec", "urllib.Request", "os.mkdir", "os.remove"}
happened, watching = [], True
def watch(event, arguments):
    if watching and event in EVENTS:
        happened.append(f"{event} {arguments!r}")
    if watching and event == "open" and set(str(arguments[1] or "")) & set("wax+"):
        happened.append(f"open for writing {arguments[0]!r}")
sys.addaudithook(watch)
def states():
    kind, keys, *rest = np.random.get_state()
    return [random.getstate(), (kind, keys.tolist(), rest), torch.get_rng_state().tolist(),
            torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()]
before = states()
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
for file in json.loads(sys.argv[2]):
    spec = importlib.util.spec_from_file_location("tool_" + file.split("/")[-1][:-3], file)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
watching = False
if states() != before:
    happened.append("a seed, a thread count or a torch setting was changed")
happened += [f"{name} was imported" for name in json.loads(sys.argv[3]) if name in sys.modules]
print("REPORT" + json.dumps(happened))
"""


def test_nothing_happens_at_import() -> None:
    modules, tools = [], []
    for file in source_files():
        name = file.relative_to(ROOT)
        if name.parts[0] == "tools":
            tools.append(name.as_posix())
        else:
            parts = name.with_suffix("").parts
            modules.append(".".join(("musicon", *parts)).removesuffix(".__init__"))
    done = subprocess.run(
        [sys.executable, "-c", WATCHER, json.dumps(modules), json.dumps(tools),
         json.dumps(sorted(SPEAKS_TO))],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.rpartition("REPORT")[2])
    assert not report, "\n".join(report)
