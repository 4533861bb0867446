import pytest
import torch
from torch import nn

from monai_flowssn.segmenters import DeterministicUNet


class FreeLogits(nn.Module):
    """Logits that are parameters, one per class and pixel."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, image):
        return self.logits


def test_the_loss_is_the_mean_over_annotated_raters_by_a_loop():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5)
    masks = torch.randint(0, 3, (2, 4, 4, 5), dtype=torch.int16)
    masks[0, 1] = masks[0, 3] = masks[1, 0] = -1
    log_p = logits.double().log_softmax(dim=1)
    of_cases = []
    for b in range(2):
        of_raters = []
        for mask in masks[b]:
            if (mask >= 0).all():
                pixels = [-log_p[b, mask[i, j], i, j] for i in range(4) for j in range(5)]
                of_raters.append(sum(pixels) / 20)
        of_cases.append(sum(of_raters) / len(of_raters))
    loss = DeterministicUNet(FreeLogits(logits), num_classes=3).loss(torch.zeros(2, 1, 4, 5), masks)["loss"]
    assert loss.item() == pytest.approx((sum(of_cases) / 2).item(), rel=1e-6)


def test_at_the_optimum_the_map_is_the_mean_of_the_raters():
    masks = torch.tensor([[0, 1], [0, 1], [1, 1], [0, 0], [-1, -1]]).view(1, 5, 1, 2)
    mean = torch.tensor([[0.75, 0.25], [0.25, 0.75]])  # (K, pixels)
    segmenter = DeterministicUNet(FreeLogits(mean.log().view(1, 2, 1, 2)))
    segmenter.loss(torch.zeros(1, 1, 1, 2), masks)["loss"].backward()
    torch.testing.assert_close(segmenter.net.logits.grad, torch.zeros(1, 2, 1, 2), rtol=0, atol=1e-7)
    draws = segmenter.sample(torch.zeros(1, 1, 1, 2), 2)
    torch.testing.assert_close(draws.detach(), mean.view(1, 1, 2, 1, 2).expand(1, 2, 2, 1, 2))
