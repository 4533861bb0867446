"""Stochastic medical image segmentation: models of p(mask | image) learnt from several experts, as MONAI bundles.

Axis letters used everywhere: ``B`` batch, ``C`` image channels, ``K`` classes, ``R`` raters, ``N`` draws,
``*S`` spatial axes (2-D or 3-D).

What a model is made of:

- `monai_flowssn.segmenters`: the methods, each a `StochasticSegmenter` with ``loss`` and ``sample``;
  `monai_flowssn.shipped` loads those with weights
- `monai_flowssn.networks`, `monai_flowssn.flows`, `monai_flowssn.sampling`: what methods are built from
- `monai_flowssn.inferers`: draws of whole images and volumes, for MONAI's engines

What judges one:

- `monai_flowssn.metrics`: sets of draws against sets of raters; `monai_flowssn.kernel_score` is the one to train on
- `monai_flowssn.handlers`: the same in Ignite's engines, checkpoints, budgets and MLflow
- `monai_flowssn.reports`: tables of evaluations with intervals

What feeds and uses one:

- `monai_flowssn.data`: data sets and the contract of a loader; `monai_flowssn.check` looks at data of your own
- `monai_flowssn.transforms`: raters before the network; maps, files and panels after it
- `monai_flowssn.dicom`: results as DICOM objects, and a PACS
- `monai_flowssn.workflows`: what the YAML of the bundles calls
"""

__version__ = "0.1.0"
