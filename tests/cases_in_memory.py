"""Cases as transforms meet them after loading."""

import torch
from monai.data import MetaTensor


def item(label, image=None, **more):
    """A case named c7 of a label (R, *S), and an image of zeros if none is given."""
    label = torch.as_tensor(label)
    image = torch.zeros(1, *label.shape[1:]) if image is None else image
    return {"image": MetaTensor(image), "label": MetaTensor(label), "case": "c7", **more}


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)
