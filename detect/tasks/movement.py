"""Which movement a work belongs to: Baroque, Cubism, Ukiyo-e, ...

All works of a painter go to one side of the split: else a painter's manner would pass for the
movement's.
"""

from __future__ import annotations

from musicon.detect.tasks import TaskKind

TASK = TaskKind("movement", keys=("movement", "style", "school"), apart=("painter", "artist"),
                question="Which movement is it?")
