"""Let PyPI's torchvision be imported beside a CPU build of torch: becomes the sitecustomize.py of MONAI Label's environment.

The compiled operators of that wheel need CUDA's libraries. MONAI Label uses none of them, but torchvision wants their names.
"""

import importlib.abc
import sys


class _DeclareOperators(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Declare them when torchvision is asked for, and leave finding it to others."""
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in ("nms", "qnms"):
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            sys.torchvision_operators = self  # type: ignore[attr-defined]  # the operators live as long as their library


sys.meta_path.insert(0, _DeclareOperators())
