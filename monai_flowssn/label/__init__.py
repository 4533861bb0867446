"""A MONAI Label app for our bundles: :class:`monai_flowssn.label.app.StochasticSegmentation`, where MONAI Label is installed."""
