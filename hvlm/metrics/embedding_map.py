"""A map of embeddings in two dimensions, for the eye alone: quality is measured in the original space.

Shapes: N rows, D width.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import TSNE

PERPLEXITY = 30.0


def tsne(embedding_ND: NDArray[np.floating], *, seed: int) -> NDArray[np.float64]:
    """Return (N, 2) the t-SNE of rows by cosine distance; the same for the same rows and seed.

    Args:
        embedding_ND: at least 4 rows.
        seed: of the descent.

    Raises:
        ValueError: fewer rows, or a value is not finite.

    Source: van der Maaten & Hinton 2008.
    """
    if embedding_ND.ndim != 2 or len(embedding_ND) < 4:
        raise ValueError(f"embeddings {embedding_ND.shape} must be (N, D) with 4 rows or more")
    perplexity = min(PERPLEXITY, (len(embedding_ND) - 1) / 3)
    model = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=seed)
    return np.asarray(model.fit_transform(np.asarray(embedding_ND, dtype=np.float64)), dtype=np.float64)
