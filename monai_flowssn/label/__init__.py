"""A MONAI Label app for our bundles. Import it where MONAI Label is installed (``scripts/label_server`` sees to that)."""

from monai_flowssn.label.app import StochasticSegmentation

__all__ = ["StochasticSegmentation"]
