"""Labels that are probably wrong, by confident learning (Northcutt, Jiang, Chuang, JAIR 2021)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.reports.scores import Labels


def suspects(log_probabilities_NC: NDArray[np.floating], labels_N: Labels) -> Labels:
    """Indices of the samples whose label is probably another, the least probable label first.

    Confident learning: a sample is suspect if it belongs to another class than its label says with a probability at
    or above the mean that samples of that class have. The network must not have been trained on these samples.
    """
    if len(np.unique(labels_N)) < 2:
        return np.empty(0, dtype=np.int64)
    from cleanlab.filter import find_label_issues  # 2 s, for this alone

    probabilities = np.exp(log_probabilities_NC.astype(np.float64))
    found = find_label_issues(
        labels_N, probabilities / probabilities.sum(1, keepdims=True),
        filter_by="confident_learning", return_indices_ranked_by="self_confidence", n_jobs=1,
    )  # fmt: skip
    return np.asarray(found, dtype=np.int64)
