"""Published numbers, each with the convention under which it was computed, as far as the papers and their code say."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A row of a published table.

    Args:
        method: its name.
        values: by the key of our metrics and N where it matters: ``ged_v_n16``, ``hm_iou_duplicate``, ``dice_majority``.
        note: what a reader has to know.
    """

    method: str
    values: dict[str, float]
    note: str = ""


PUBLISHED: dict[str, tuple[str, tuple[Published, ...]]] = {
    "lidc": (
        "LIDC-IDRI, 15,096 slices of 128x128 (Knegt's and PHiSeg's version); N is 16, or at most 100. Most files have other "
        "slices and splits, so this is close, not identical, ground. Dice per_rater may be pooled over all case-rater pairs, as "
        "in SSN's code.",
        (
            Published("U-Net", {"ged_v_n100": 0.676, "hm_iou_duplicate": 0.463, "dice_expected": 0.519}),
            Published(
                "Prob. U-Net",
                {"ged_v_n16": 0.287, "ged_v_n100": 0.252, "hm_iou_duplicate": 0.500, "dice_per_rater_drop": 0.390},
            ),
            Published("cFlow Net", {"ged_v_n100": 0.225, "hm_iou_duplicate": 0.584, "dice_expected": 0.449}),
            Published("PHiSeg", {"ged_v_n100": 0.225, "hm_iou_duplicate": 0.595, "dice_per_rater_drop": 0.486}),
            Published("SSN, rank 10", {"ged_v_n100": 0.225, "hm_iou_duplicate": 0.555, "dice_per_rater_drop": 0.436}),
            Published("SSN++", {"ged_v_n16": 0.241, "ged_v_n100": 0.212, "dice_majority": 0.471}),
            Published("Joint Prob. U-Net", {"ged_v_n100": 0.206, "hm_iou_duplicate": 0.647, "dice_expected": 0.511}),
            Published("P2SAM", {"ged_v_n16": 0.218, "ged_v_n100": 0.216, "hm_iou_best_n16": 0.679}, "best 4 of 16"),
            Published("MoSE", {"ged_v_n16": 0.218, "ged_v_n100": 0.189, "hm_iou_duplicate": 0.624}),
            Published("CCDM", {"ged_v_n16": 0.212, "ged_v_n100": 0.183}),
            Published("MedFM", {"ged_v_n16": 0.202}),
            Published(
                "ATFM", {"ged_v_n16": 0.206, "ged_v_n100": 0.162}, "from its n32 about 0.176 would follow for n100"
            ),
            Published("KANResDiff", {"ged_v_n100": 0.172}),
            Published(
                "Flow-SSN, autoregressive",
                {"ged_v_n16": 0.240, "ged_v_n100": 0.212, "hm_iou_best_n100": 0.879, "dice_majority": 0.468},
                "best 4 of 100",
            ),
            Published(
                "Flow-SSN, continuous, Euler 50",
                {"ged_v_n16": 0.210, "ged_v_n100": 0.182, "hm_iou_best_n100": 0.873, "dice_majority": 0.611},
                "best 4 of 100",
            ),
            Published("conditional flow matching, 15 draws", {"dice_majority": 0.595}),
        ),
    ),
    "lidc_nf_punet": (
        "LIDC-IDRI of NF-PUNet (arXiv 2108.02155), 16 draws; drop leaves pairs of empty masks out.",
        tuple(
            Published(method, {"ged_v_drop_n16": excluded, "ged_v_n16": included, "hm_iou_duplicate": matched})
            for method, excluded, included, matched in (
                ("vanilla", 0.33, 0.39, 0.57),
                ("2-planar", 0.29, 0.35, 0.57),
                ("2-radial", 0.29, 0.34, 0.58),
                ("4-planar", 0.30, 0.35, 0.57),
                ("4-radial", 0.29, 0.34, 0.57),
            )
        ),
    ),
    "lidc_cflow": (
        "LIDC-IDRI of cFlow Net (arXiv 2006.02683), split by slice, so that patients are in training and test; Dice against one "
        "rater.",
        (
            Published("U-Net", {"dice_single": 0.727}),
            Published("Prob. U-Net", {"ged_v": 0.279, "dice_single": 0.698}),
            Published("planar", {"ged_v": 0.204, "dice_single": 0.713}),
            Published("Glow", {"ged_v": 0.302, "dice_single": 0.704}),
        ),
    ),
    "retinal_vessel": (
        "Retinal Vessel (DRIVE, STARE, CHASE_DB1; 68 images) of cFlow Net (arXiv 2006.02683).",
        (
            Published("U-Net", {"dice_single": 0.624}),
            Published("Prob. U-Net", {"ged_v": 0.905, "dice_single": 0.616}),
            Published("planar", {"ged_v": 0.884, "dice_single": 0.632}),
            Published("Glow", {"ged_v": 0.901, "dice_single": 0.620}),
        ),
    ),
    "kvasir": (
        "Kvasir-SEG of NF-PUNet (arXiv 2108.02155), one rater.",
        (
            Published("vanilla", {"ged_v_drop": 0.68, "average_iou_drop": 0.62}),
            Published("2-planar", {"ged_v_drop": 0.62, "average_iou_drop": 0.71}),
            Published("2-radial", {"ged_v_drop": 0.63, "average_iou_drop": 0.66}),
        ),
    ),
    "refuge": (
        "REFUGE-MultiRater, 256x256, of Flow-SSN (arXiv 2507.18838).",
        (
            Published("Flow-SSN, autoregressive", {"ged_v_n16": 0.116, "ged_v_n100": 0.089, "ged_v_n512": 0.081}),
            Published("Flow-SSN, continuous", {"ged_v_n16": 0.112, "ged_v_n100": 0.089}),
        ),
    ),
}
