"""Where detectron2 is, and what its configuration files say of a network.

A file becomes plain values, which the model folder holds: it then needs neither the file nor those
that it is based on. A YAML file of detectron2's may hold expressions and a LazyConfig file is
Python, so both are run when they are read: give only files that you trust. What was read builds
nothing but detectron2's own layers and networks, whoever wrote the model folder.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from musicon.datasets.records import UserError
from musicon.detect.config import ConfigError

CHECKOUT = "MUSICON_DETECTRON2"
"""Environment variable: the folder of a source checkout."""
OTHER_HEADS = ("mask_", "keypoint_")
LAZY_MODULES = ("detectron2.modeling.", "detectron2.layers.", "torch.nn.")
"""Where what a LazyConfig file builds may come from."""


def import_library() -> None:
    """Import detectron2, installed or from the checkout.

    Raises:
        ImportError: It is not there, or something that it needs is not.
    """
    folder = os.environ.get(CHECKOUT, "")
    install = "pip install -e '.[detectron2]'"
    if folder and not (Path(folder) / "detectron2" / "__init__.py").is_file():
        raise ImportError(f"{CHECKOUT}={folder} is no checkout of detectron2: there is no file "
                          "detectron2/__init__.py in it.\nName the folder of a clone of "
                          f"facebookresearch/detectron2; what it needs comes with: {install}")
    try:
        with _on_path(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it scripts functions, as one used to
            import detectron2.config
            import detectron2.modeling  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] != "detectron2":
            raise ImportError(f"detectron2 needs {error.name}, which is not installed.\n"
                              f"Type: {install}") from None
        raise ImportError(
            f"detectron2 is not installed, and {CHECKOUT} names no checkout of it.\nClone "
            f"facebookresearch/detectron2, set {CHECKOUT} to its folder, and type: {install}"
        ) from None


@contextmanager
def _on_path(folder: str) -> Iterator[None]:
    """A folder that Python looks into first, for as long as it takes to import a package.

    No longer, since a checkout has folders named tools and tests too.
    """
    if not folder:
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def read_file(file: Path) -> dict[str, Any]:
    """A YAML file's ``MODEL`` and ``INPUT.FORMAT``, or a LazyConfig file's ``model``.

    Raises:
        ConfigError: No such file, not one of detectron2's, or one that cannot be written down.
    """
    if not file.is_file():
        raise ConfigError(f"detector.config={file}: no such file; the checkout of detectron2 has "
                          "some in configs/COCO-Detection")
    try:
        return (_read_lazy if file.suffix == ".py" else _read_yaml)(str(file))
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 (the file is code, and may raise anything)
        raise ConfigError(f"detector.config={file}: not a file that detectron2 can read "
                          f"({type(error).__name__}: {' '.join(str(error).split())})") from None


def _read_yaml(file: str) -> dict[str, Any]:
    """What a YAML file, and those that it is based on, say of the network."""
    from detectron2.config import CfgNode, get_cfg

    # detectron2's own RetinaNet files hold expressions to be evaluated.
    held = CfgNode.load_yaml_with_base(file, allow_unsafe=True)
    get_cfg().merge_from_other_cfg(CfgNode(held))
    return _plain({"MODEL": held.get("MODEL", {}),
                   "INPUT": {k: v for k, v in held.get("INPUT", {}).items() if k == "FORMAT"}})


def _read_lazy(file: str) -> dict[str, Any]:
    """What a LazyConfig file says of the network, without heads that give no boxes."""
    from detectron2.config import LazyConfig
    from omegaconf import OmegaConf, SCMode

    held = LazyConfig.load(file)
    model: Any = OmegaConf.to_container(held.model, resolve=True,
                                        structured_config_mode=SCMode.INSTANTIATE)
    heads = model.get("roi_heads", {})
    for name in [name for name in heads if name.startswith(OTHER_HEADS)]:
        del heads[name]
    return {"model": _plain(model), "init_checkpoint": held.get("train", {}).get("init_checkpoint")}


def _plain(value: Any, where: str = "") -> Any:
    """Values as a settings file can hold them, callables by name.

    Raises:
        ConfigError: A value that no file can hold.
    """
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, where) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"_target_": _name(type(value)), **_plain(vars(value), where)}
    if where.endswith("._target_") and hasattr(value, "__qualname__"):
        return _name(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ConfigError(f"detector.config: {where.lstrip('.')} is a {type(value).__name__}, which "
                      "cannot be saved with the weights; write its name, or a number")


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _is_layer(target: str) -> bool:
    """Whether building it builds a layer or network of detectron2's or PyTorch's, and no more."""
    from detectron2.utils.registry import locate

    if not target.startswith(LAZY_MODULES):
        return False
    thing = locate(target)
    name = _name(thing)
    if name.startswith("torch."):  # some of its functions import what they are told to
        return isinstance(thing, type) and issubclass(thing, nn.Module)
    return name.startswith(LAZY_MODULES) and "mmdet" not in name  # which loads weights by itself


def adapted(tree: Any, outputs: int) -> Any:
    """A LazyConfig's tree for other classes, with nothing frozen and nothing foreign in it."""
    if isinstance(tree, list):
        return [adapted(item, outputs) for item in tree]
    if not isinstance(tree, Mapping):
        return tree
    target = tree.get("_target_")
    if target is not None and not _is_layer(target):
        raise ConfigError(f"detector.config: {target} is none of detectron2's layers and networks; "
                          "a model folder may build no other")
    ours = {"num_classes": outputs, "freeze_at": 0}
    return {k: ours[k] if k in ours else adapted(v, outputs) for k, v in tree.items()}


def says(tree: Any, key: str) -> bool:
    """Whether a setting, named in small letters, is true anywhere in what was read."""
    if isinstance(tree, list):
        return any(says(item, key) for item in tree)
    return isinstance(tree, Mapping) and any(
        (name.lower() == key and str(value) == "True") or says(value, key)
        for name, value in tree.items())
