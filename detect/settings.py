"""Settings in files: what YAML and ``a.b=value`` overrides say, checked, and errors that help."""

from __future__ import annotations

import copy
import difflib
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from musicon.datasets.records import UserError

STAGE_ORDER = ("mimo", "google", "cytomine")
"""The stages of the method, in training order."""


class ConfigError(UserError):
    """Settings that cannot be used; the message names the key and what to write instead."""


class Settings(BaseModel):
    """Base of all settings: frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)


def by_path(value: Any) -> Any:
    """``bank: DIR`` is short for ``bank: {path: DIR}``."""
    return {"path": value} if isinstance(value, (str, Path)) else value


def load_as(kind: type[S], path: str | Path | None = None, overrides: Sequence[str] = ()) -> S:
    """Read a YAML file, apply overrides, and check everything, as ``config.load`` does.

    Raises:
        ConfigError: Naming the key, what is wrong, and the nearest key that exists.
    """
    document: dict[str, Any] = {} if path is None else _read_yaml(Path(path))
    for override in overrides:
        _set(document, override)
    return checked(kind, document, "settings" if path is None else str(path))


def quoted(key: str, value: str | Path) -> str:
    """An override whose value is text as it stands, whatever YAML would read in it."""
    return f"{key}={json.dumps(str(value))}"


def checked(kind: type[S], document: Mapping[str, Any], source: str) -> S:
    """The settings of a parsed document; ``source`` names it in errors.

    Raises:
        ConfigError: Naming every key that is unknown or has an unusable value.
    """
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        faults = [fault(found, kind) for found in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(faults)) from None


def dump(config: Settings) -> str:
    """YAML text of all settings, defaults included; ``load`` reads the same settings back."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


def differences(first: Mapping[str, Any], second: Mapping[str, Any], above: str = "") -> list[str]:
    """What changed between two dumped settings, as ``key: old -> new`` lines."""
    found: list[str] = []
    for key in dict.fromkeys((*first, *second)):
        old, new = first.get(key), second.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{above}{key}.")
        elif old != new:
            found.append(f"{above}{key}: {old} -> {new}")
    return found


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        others = sorted(str(p) for p in file.parent.glob("*.yaml"))
        there = f"; there are {', '.join(others[:8])}" if others else ""
        raise ConfigError(f"{file}: no such settings file{there}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{file}: not a readable YAML file ({reason}); give one such as "
                          "configs/stages/default.yaml") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: expected settings such as 'seed: 0', "
                          f"found a {type(document).__name__}")
    return document


def _set(document: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise ConfigError(f"--set {override}: write --set key.key=value, "
                          "such as --set stages.mimo.classifier.steps=100")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not YAML "
                          f"({' '.join(str(error).split())})") from None
    stages = document.get("stages")
    if path[0] == "stages" and len(path) > 2 and isinstance(stages, dict) and path[1] not in stages:
        raise ConfigError(f"--set {override}: no stage is named {path[1]!r}; "
                          + nearest(path[1], list(stages)))
    if isinstance(document.get("detector"), str):
        document["detector"] = {"engine": document["detector"]}
    if path == ["detector"] and isinstance(value, str):
        path = ["detector", "engine"]
    node = document
    for part in path[:-1]:
        below = node.get(part)
        if part == "bank":
            below = by_path(below)
        node[part] = dict(below) if isinstance(below, Mapping) else {}
        node = node[part]
    node[path[-1]] = copy.deepcopy(value)


def fault(found: Any, kind: type[Settings]) -> str:
    """One of pydantic's faults in words."""
    loc = [str(part) for part in found["loc"]]
    key = ".".join(loc)
    if found["type"] == "extra_forbidden":
        siblings = [".".join([*loc[:-1], name]) for name in _fields_at(loc[:-1], kind)]
        namesakes = [k for k in _keys(kind) if k.split(".")[-1] == loc[-1]]
        return f"{key}: unknown setting; {nearest(key, siblings, namesakes)}"
    if found["type"] == "missing":
        return f"{key}: must be given"
    if found["type"] == "value_error" and not key:
        return str(found["ctx"]["error"])
    what = found["msg"].removeprefix("Value error, ")
    if isinstance(found["input"], Mapping):  # a whole section, which would bury the sentence
        return f"{key}: {what}"
    return f"{key}: {what} (found {found['input']!r})"


def nearest(word: str, choices: Sequence[str], namesakes: Sequence[str] = ()) -> str:
    """``did you mean X?``, or the list of what exists."""
    close = list(namesakes[:1]) or difflib.get_close_matches(word, choices, n=1, cutoff=0.7)
    if close:
        return f"did you mean {close[0]}?"
    return f"there are {', '.join(choices)}" if choices else "there are none here"


def _settings_in(annotation: Any) -> type[Settings] | None:
    """The settings class inside ``X``, ``X | None`` or ``dict[str, X]``."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    inner = (_settings_in(argument) for argument in typing.get_args(annotation))
    return next((found for found in inner if found is not None), None)


def _fields_at(loc: Sequence[str], kind: type[Settings]) -> list[str]:
    """Names of the settings at a place such as ``["stages", "mimo"]``."""
    model: type[Settings] | None = kind
    inside_dict = False
    for part in loc:
        if inside_dict:
            inside_dict = False
            continue
        if model is None or part not in model.model_fields:
            return []
        annotation = model.model_fields[part].annotation
        inside_dict = typing.get_origin(annotation) is dict
        model = _settings_in(annotation)
    return [] if model is None or inside_dict else list(model.model_fields)


def _keys(model: type[Settings], above: str = "") -> Iterator[str]:
    """Every dotted key that there is; a stage's are given for the first stage."""
    for name, field in model.model_fields.items():
        inner = _settings_in(field.annotation)
        if inner is None:
            yield above + name
        elif typing.get_origin(field.annotation) is dict:
            yield from _keys(inner, f"{above}{name}.{STAGE_ORDER[0]}.")
        else:
            yield from _keys(inner, f"{above}{name}.")
