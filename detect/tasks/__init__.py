"""Labels for the whole work: what it is asked (one file a task), and how that is learnt.

A task is a file of this folder with a ``TASK``; its name is what the user types.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from musicon.datasets.records import UserError

UNCERTAIN = "uncertain"
"""What a work is called that fits none of the classes."""


class Said(NamedTuple):
    """What a model says of one work.

    Attributes:
        name: The class, or ``UNCERTAIN``.
        probabilities: The three most probable classes, most first, in doubt or not.
    """

    name: str
    probabilities: Mapping[str, float]


class TaskError(UserError):
    """A task that cannot be learnt or a model of one that cannot be used; says what to type."""


@dataclass(frozen=True)
class TaskKind:
    """What a task asks of a work.

    Attributes:
        name: What predictions are called, such as ``movement``.
        keys: Attributes of a manifest that hold the answer; the first that a work has counts.
        apart: Attributes whose works must not be divided by a split: they give the answer away.
        question: For the head of a report.
    """

    name: str
    keys: tuple[str, ...]
    apart: tuple[str, ...]
    question: str


def available() -> list[str]:
    """Names of the tasks that exist."""
    modules = (importlib.import_module(f"{__name__}.{file.name}")
               for file in pkgutil.iter_modules(__path__))
    return sorted(module.TASK.name for module in modules if hasattr(module, "TASK"))


def load(name: str) -> TaskKind:
    """A task by its name.

    Raises:
        TaskError: There is none of that name; the message lists those that exist.
    """
    if name not in available():
        raise TaskError(f"no task {name!r}; there are: {', '.join(available())}")
    kind: TaskKind = importlib.import_module(f"{__name__}.{name}").TASK
    return kind
