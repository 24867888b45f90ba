"""Whose hand a work is by. Only copies of one picture are kept on one side of the split."""

from __future__ import annotations

from musicon.detect.tasks import TaskKind

TASK = TaskKind("painter", keys=("painter", "artist", "author"), apart=(),
                question="Who painted it?")
