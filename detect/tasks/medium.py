"""What a work is: a drawing, an icon, a painting, a sculpture, a photograph, ...

All works of a painter go to one side of the split, as for the movement.
"""

from __future__ import annotations

from musicon.detect.tasks import TaskKind

TASK = TaskKind("medium", keys=("medium", "technique", "material"), apart=("painter", "artist"),
                question="What kind of work is it?")
