"""What every method must do, as a check that anybody's method can be put to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from monai_flowssn.segmenters.base import StochasticSegmenter

__all__ = ["check_segmenter"]

B, N, R = 2, 3, 3


def check_segmenter(
    make: Callable[[], StochasticSegmenter],
    *,
    shape: Sequence[int] = (1, 16, 16),
    steps: int = 150,
    lr: float = 1e-2,
    deterministic: bool = False,
) -> None:
    """Put a method to the contract of all methods, with networks small enough to train for ``steps`` steps in seconds.

    It is checked that

    - draws are maps of class probabilities, as many as asked for;
    - noise begins with (B, N), and the same noise gives the same draws, other noise others, and so do other images;
    - an image's draws depend neither on the other images of its batch nor on how many draws are computed at once;
    - the terms of the loss are finite scalars, and ``loss`` reaches every parameter (one that gets no gradient stalls DDP);
    - raters that are missing are left out, and an image that nobody annotated is refused;
    - it learns: on images of which one corner is bright, all raters mark it, and after training the probability of the foreground
      is higher inside than outside by more than .5. What draws the outside, or the corner of a mirrored image, does not pass.

    Global random states are left as they were.

    Args:
        make: returns a new segmenter; called several times.
        shape: (C, *S) of its images.
        steps: of the training; 0 leaves out whether it learns.
        lr: of its optimiser, Adam.
        deterministic: whether all draws are the same map, as of a plain network.

    Raises:
        ValueError: that says which rule is broken, by what, and how to mend it.

    Example:
        >>> from monai_flowssn.networks import PlainUNet
        >>> from monai_flowssn.segmenters import SSN
        >>> check_segmenter(lambda: SSN(PlainUNet(2, 1, 6, channels=(8, 8), convs=1), num_classes=2, rank=1))
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        segmenter = _moved(make()).eval()
        image = torch.randn(B, *shape)
        name = type(segmenter).__name__
        with torch.no_grad():
            _check_draws(segmenter, image, name)
            _check_noise(segmenter, image, name, deterministic)
            _check_rows(segmenter, image, name)
        _check_loss(segmenter.train(), image, name)
        if steps:
            _check_learning(make(), shape, steps, lr, name)


def _moved(segmenter: StochasticSegmenter) -> StochasticSegmenter:
    """Move the parameters off their start, where layers of zeros block every gradient before them and make all draws alike."""
    with torch.no_grad():
        for parameter in segmenter.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return segmenter


def _check_draws(segmenter: StochasticSegmenter, image: Tensor, name: str) -> None:
    draws = segmenter.sample(image, N)
    expected = (B, N, segmenter.num_classes, *image.shape[2:])
    if draws.shape != expected or draws.dtype != torch.float32:
        raise ValueError(
            f"{name} draws {tuple(draws.shape)} {draws.dtype}; return (B, N, K, *S) = {expected}, float32."
        )
    if not (draws >= 0).all() or (draws.sum(dim=2) - 1).abs().max() > 1e-4:
        raise ValueError(
            f"{name}: draws are no probabilities; they must be in [0, 1] and add up to 1 over K: end in a softmax."
        )
    if segmenter(image).shape != (B, *expected[2:]):
        raise ValueError(f"{name}(image) is no draw (B, K, *S); leave `forward` as StochasticSegmenter has it.")


def _check_noise(segmenter: StochasticSegmenter, image: Tensor, name: str, deterministic: bool) -> None:
    noise, other = (segmenter.draw_noise(image, N) for _ in range(2))
    if any(part.shape[:2] != (B, N) for part in noise):
        shapes = [tuple(part.shape) for part in noise]
        raise ValueError(f"{name}: draw_noise gave {shapes}; each must begin with (B, N) = ({B}, {N}).")
    draws = segmenter.sample(image, N, noise)
    if not torch.equal(segmenter.sample(image, N, noise), draws):
        raise ValueError(
            f"{name}: the same noise gave other draws; let draw_noise make all randomness, and decode none."
        )
    changes = not _close(segmenter.sample(image, N, other), draws, 1e-3) and not _close(draws[:, 0], draws[:, 1], 1e-3)
    if changes == deterministic:
        raise ValueError(
            f"{name}: draws of other noise are {'others' if changes else 'the same'}; "
            + ("pass deterministic=False." if deterministic else "use the noise in decode, or pass deterministic=True.")
        )
    if _close(segmenter.sample(torch.randn_like(image), N, noise), draws, 1e-4):
        raise ValueError(
            f"{name}: draws of another image are the same; they must depend on the image, by encode or decode."
        )


def _check_rows(segmenter: StochasticSegmenter, image: Tensor, name: str) -> None:
    noise = segmenter.draw_noise(image, N)
    draws = segmenter.sample(image, N, noise)
    alone = segmenter.sample(image[1:], N, tuple(part[1:] for part in noise))
    if not _close(alone, draws[1:], 1e-4):
        raise ValueError(
            f"{name}: an image alone is drawn otherwise than in a batch; let encode and decode mix no rows."
        )
    at_once, segmenter.pixels_at_once = segmenter.pixels_at_once, 2 * B * image[0, 0].numel()
    chunked = segmenter.sample(image, N, noise)
    segmenter.pixels_at_once = at_once
    if not _close(chunked, draws, 1e-4):
        raise ValueError(f"{name}: two draws at once are others than {N} at once; let decode treat every row alone.")


def _check_loss(segmenter: StochasticSegmenter, image: Tensor, name: str) -> None:
    masks = torch.randint(0, segmenter.num_classes, (B, R, *image.shape[2:]))
    masks[0, 0] = -1
    terms = segmenter.loss(image, masks)
    if "loss" not in terms or any(term.ndim or not torch.isfinite(term) for term in terms.values()):
        raise ValueError(f"{name}: the loss is {terms}; return finite scalars, with 'loss' among them.")
    segmenter.zero_grad()
    terms["loss"].backward()
    idle = [key for key, p in segmenter.named_parameters() if p.grad is None or not p.grad.any()]
    if idle:
        raise ValueError(
            f"{name}: the loss does not reach {', '.join(idle)}; use each parameter, or make none of them."
        )
    masks[0] = -1
    try:
        segmenter.loss(image, masks)
    except ValueError:
        return
    raise ValueError(f"{name} trains on an image that no rater annotated; leave `loss` as StochasticSegmenter has it.")


def _check_learning(segmenter: StochasticSegmenter, shape: Sequence[int], steps: int, lr: float, name: str) -> None:
    optimiser = torch.optim.Adam(segmenter.train().parameters(), lr)
    for _ in range(steps):
        image, masks = _bright_corner(4, shape)
        optimiser.zero_grad()
        segmenter(image, masks)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(segmenter.parameters(), 10.0)
        optimiser.step()
    image, masks = _bright_corner(16, shape)
    foreground = 1 - segmenter.eval().sample(image, 2)[:, :, 0].mean(dim=1)  # (B, *S)
    inside, outside = (foreground[masks[:, 0] == marked].mean().item() for marked in (1, 0))
    if not inside - outside > 0.5:
        raise ValueError(
            f"{name}: after {steps} steps at lr {lr} the foreground has probability {inside:.2f} where all raters marked it and "
            f"{outside:.2f} elsewhere; it must be higher by more than .5. Look for an inverted or mirrored target, a wrong sign, "
            "or a rate that does not suit these networks."
        )


def _bright_corner(count: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return images (count, C, *S) with one of their 2^d corners bright, and masks (count, R, *S) of it that agree."""
    channels, *size = shape
    masks = torch.ones(count, *size, dtype=torch.long)
    for axis, length in enumerate(size):
        place = torch.arange(length).view(-1, *(1,) * (len(size) - axis - 1))
        first = torch.randint(2, (count, *(1,) * len(size))).bool()
        masks *= (place < length // 2) == first
    image = 2.0 * masks[:, None] - 1 + 0.1 * torch.randn(count, channels, *size)
    return image, masks[:, None].repeat(1, R, *(1,) * len(size))


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return bool((a - b).abs().max() <= tolerance)
