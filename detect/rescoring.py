"""A second look at what the detector proposes: an instrument, or one of its false alarms?

Classifier and detector learn from boxes that people drew and from pictures without instruments,
not from what the detector then takes for an instrument in a painting. The rescorer does: a linear
model on the classifier's features of a proposed box and of its surroundings, fitted at a stage's
end to the detector's own proposals in the stage's real pictures, as R-CNN's last step fits linear
machines to mined negatives (Girshick et al. 2014). It decides on the score alone, never on the
name.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SURROUNDINGS = 1.0
"""Margin of the second crop, as a share of the box's longer side: hands, player, table."""
STRENGTH = 0.2
"""Inverse of the ridge penalty on the mean loss, for standardised features. Strong: proposals are
few against features, and all but a few come from other collections than the one searched."""
LEAST_SPREAD = 0.1
"""Least standard deviation that a feature is divided by, as a share of their median: a feature that
was all but silent in the examples must not decide alone when it speaks up in some picture."""
LEAST = 20
"""Instruments, and false alarms, without which nothing is fitted."""


class Rescorer(nn.Module):
    """How likely a proposed box holds an instrument, by the classifier's features.

    Attributes:
        linear: From the F features of the box and the F of its surroundings to one logit.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)

    def forward(self, features: Tensor) -> Tensor:
        """float32 (N, 2F) -> (N,) in [0, 1]; instruments and false alarms count as equally many."""
        return torch.sigmoid(self.linear(features)[:, 0])


def fit_rescorer(features: NDArray[np.float32], hits: NDArray[np.bool_]) -> Rescorer | None:
    """Logistic regression, both classes weighing the same.

    Args:
        features: (N, 2F), of the crops of boxes and of their surroundings.
        hits: (N,), whether the box holds an instrument.

    Returns:
        None where there are too few of either to learn from.
    """
    from sklearn.linear_model import LogisticRegression

    if min(int(hits.sum()), int((~hits).sum())) < LEAST:
        return None
    exact = features.astype(np.float64)
    mean, spread = exact.mean(axis=0), exact.std(axis=0)
    scale = np.maximum(spread, LEAST_SPREAD * np.median(spread)).clip(1e-6)
    found = LogisticRegression(C=STRENGTH / len(hits), class_weight="balanced",
                               max_iter=1000).fit((exact - mean) / scale, hits)
    weight = found.coef_ / scale
    rescorer = Rescorer(features.shape[1])
    with torch.no_grad():
        rescorer.linear.weight.copy_(torch.from_numpy(weight))
        rescorer.linear.bias.copy_(torch.from_numpy(found.intercept_ - weight @ mean))
    return rescorer.eval()
