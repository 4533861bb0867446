"""MarkovShapes: a toy distribution of label images of which everything is known exactly."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["MarkovShapes"]


class MarkovShapes:
    r"""Four quadrants, each empty or with a square, a plus or a dot, chained by a Markov process.

    The toy of De Sousa Ribeiro et al. 2025, arXiv 2507.18838, sec. 6.1: the first quadrant is uniform over the four shapes, and

    .. math:: p(y) = \tfrac{1}{4} \prod_{q=1}^{3} T_{s_q s_{q+1}}

    with the matrix ``transitions`` in the order of ``shapes``. The paper gives the chain and leaves the drawing open: the drawing
    is ours: 16 x 16 pixels, two classes, quadrants of 8 x 8 in the order top left, top right, bottom left, bottom right; the
    square is 6 x 6, the plus has arms 2 wide over 6 pixels, the dot is 2 x 2, all centred.

    As there are only 256 images, the entropy, and so the least negative log-likelihood of any model, is a sum of 256 terms.

    Attributes:
        shapes: names of the four states.
        transitions: (4, 4) double, T; the rows are where a step starts.
        states: (256, 4) integer, the shape in each quadrant of each image.
        images: (256, 16, 16) uint8.
        probabilities: (256,) double, with the sum 1.

    Example:
        >>> toy = MarkovShapes()
        >>> f"{toy.entropy:.4f} bits, {toy.bits_per_dimension:.5f} per pixel"
        '7.6356 bits, 0.02983 per pixel'
        >>> toy.sample(2).shape
        torch.Size([2, 16, 16])
    """

    shapes = ("empty", "square", "plus", "dot")

    def __init__(self) -> None:
        eightieths = [[20, 20, 20, 20], [20, 6, 27, 27], [20, 27, 6, 27], [20, 27, 27, 6]]
        self.transitions = torch.tensor(eightieths, dtype=torch.float64) / 80
        self.states = torch.cartesian_prod(*4 * [torch.arange(4)])
        steps = self.transitions[self.states[:, :-1], self.states[:, 1:]]  # (256, 3)
        self.probabilities = steps.prod(dim=1) / 4
        tiles = _draw_shapes()[self.states].unflatten(1, (2, 2))  # (256, row, column, 8, 8)
        self.images = tiles.transpose(2, 3).reshape(-1, 16, 16)

    @property
    def entropy(self) -> float:
        """Entropy in bits."""
        return -float((self.probabilities * self.probabilities.log2()).sum())

    @property
    def bits_per_dimension(self) -> float:
        """The entropy per pixel: no model has a smaller negative log-likelihood."""
        return self.entropy / self.images[0].numel()

    @property
    def covariance(self) -> Tensor:
        """Covariance of the 256 pixels, (256, 256) double, of rank 12: three shapes in each of four quadrants."""
        pixels = self.images.flatten(1).double()
        centred = pixels - self.probabilities @ pixels
        return (self.probabilities[:, None] * centred).T @ centred

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n label images, (n, 16, 16) uint8."""
        return self.images[torch.multinomial(self.probabilities, n, replacement=True, generator=generator)]

    def identify(self, labels: Tensor) -> Tensor:
        """Say which of the 256 images a label image is.

        Args:
            labels: (N, 16, 16) integer.

        Returns:
            (N,) position in ``images``; -1 for a hallucination, an image that has probability zero.
        """
        if labels.shape[1:] != self.images.shape[1:]:
            raise ValueError(
                f"labels have shape {tuple(labels.shape)}, but must be (N, 16, 16): pass whole label images."
            )
        a, b = labels.flatten(1).float(), self.images.flatten(1).float()
        # squared distances: sums of small integers, so exact
        distance = a.square().sum(dim=1, keepdim=True) - 2 * a @ b.T + b.square().sum(dim=1)  # (N, 256)
        nearest = distance.min(dim=1)
        return torch.where(nearest.values == 0, nearest.indices, -1)

    def total_variation(self, found: Tensor) -> float:
        """Total variation distance between the true distribution and that of a sample.

        It is 0 for the same frequencies, 1 for hallucinations alone, and never below the share of hallucinations. Even a perfect
        sampler of N images scores above 0: :meth:`expected_total_variation`.

        Args:
            found: (N,), what :meth:`identify` said of the sampled images.
        """
        known = found[found >= 0]
        frequencies = torch.bincount(known, minlength=len(self.images)).double() / len(found)
        outside = 1 - len(known) / len(found)
        return float((frequencies - self.probabilities).abs().sum() + outside) / 2

    def expected_total_variation(self, n: int) -> float:
        """Expected total variation distance of n images of the true distribution, by the normal approximation."""
        deviations = (self.probabilities * (1 - self.probabilities) / n).sqrt()
        return float(deviations.sum()) / math.sqrt(2 * math.pi)


def _draw_shapes() -> Tensor:
    """Return the tiles of the four shapes, (4, 8, 8) uint8."""
    tiles = torch.zeros(4, 8, 8, dtype=torch.uint8)
    tiles[1, 1:7, 1:7] = 1
    tiles[2, 1:7, 3:5] = 1
    tiles[2, 3:5, 1:7] = 1
    tiles[3, 3:5, 3:5] = 1
    return tiles
