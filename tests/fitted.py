"""Models with random weights, as if they had been fitted."""

import numpy as np

from streamtwl.training import linear


def random_patch_model(
    categories: int, labels: int, seed: int = 0, embedding: int = 0, std: float = 1.0
) -> linear.PatchModel:
    """Return a model of rows that begin with a posterior and end with an embedding."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(50, categories + embedding)).astype(np.float32)
    rows[:, :categories] = rng.uniform(0, 1, (50, categories)) ** 3
    is_posterior = np.arange(categories + embedding) < categories
    prior = rng.dirichlet(np.ones(labels + 1))
    return linear.PatchModel(
        linear.Features.of(rows, is_posterior),
        rng.normal(0, std, (labels + 1, len(is_posterior))).astype(np.float32),
        np.zeros(labels + 1, np.float32),
        np.log(prior).astype(np.float32),
    )
