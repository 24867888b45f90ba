"""Transfer methods: one file each, found by name, with ``Settings`` and ``build(settings)``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from musicon.styletransfer.methods.base import StyleMethod
from musicon.styletransfer.weights import StyleError

METHODS = ("adain", "gatys", "johnson")
"""Method names; each is a module of this package."""
DEFAULT = "adain"


def build(name: str = DEFAULT, settings: Mapping[str, Any] | None = None) -> StyleMethod:
    """A transfer method by name, on the CPU in float32; ``place`` moves it.

    Args:
        name: One of ``METHODS``.
        settings: Such as ``{"encoder": FILE, "decoder": FILE}``; each method's own are in its
            module's ``Settings``.

    Raises:
        StyleError: Unknown name or setting, or weights that cannot be used.
    """
    if name not in METHODS:
        raise StyleError(f"style method {name!r} is not known; write one of: {', '.join(METHODS)}")
    module = importlib.import_module(f"musicon.styletransfer.methods.{name}")
    try:
        parsed = module.Settings.model_validate(dict(settings or {}))
    except ValidationError as error:
        faults = "; ".join(_fault(fault) for fault in error.errors())
        known = ", ".join(module.Settings.model_fields)
        raise StyleError(f"{name}: {faults}; its settings are {known}") from None
    method: StyleMethod = module.build(parsed).eval()
    return method


def _fault(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{key} is no setting"
    if fault["type"] == "missing":
        return f"{key} must be given"
    return f"{key}: {fault['msg'].removeprefix('Value error, ')} (found {fault['input']!r})"
