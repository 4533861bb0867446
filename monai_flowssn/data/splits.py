"""Splits and folds by patient: the same in every process, on every machine, under every Python version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

__all__ = ["SPLITS", "fold_patients", "split_patients", "stable_hash"]

SPLITS = ("train", "val", "test")


def stable_hash(text: str) -> int:
    """64-bit hash of a text that, unlike Python's ``hash``, never changes between processes.

    >>> stable_hash("LIDC-IDRI-0001")
    12403152646707460351
    """
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def split_patients(
    patients: Iterable[str | int], *, fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0
) -> dict[str, list[str]]:
    """Divide patients into train, val and test; every patient goes to exactly one of them.

    The patients are ordered by a stable hash of seed and patient and cut at the rounded fractions, so the sizes are
    exact and neither the order nor the repetition of patients in the input matters.

    Args:
        patients: patient of every case; repetitions are welcome.
        fractions: shares of train, val and test; positive or zero, with the sum 1.
        seed: another seed gives another split.

    Returns:
        Patients, as strings in alphabetical order, for each of ``train``, ``val`` and ``test``.

    >>> {name: len(part) for name, part in split_patients(range(100)).items()}
    {'train': 70, 'val': 15, 'test': 15}
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            f"Got fractions={tuple(fractions)}; expected three shares >= 0 for {SPLITS} with the sum 1, "
            "for example (0.7, 0.15, 0.15)."
        )
    ranked = _ranked(patients, seed)
    first = round(len(ranked) * fractions[0])
    second = round(len(ranked) * (fractions[0] + fractions[1]))
    return dict(zip(SPLITS, (sorted(ranked[:first]), sorted(ranked[first:second]), sorted(ranked[second:]))))


def fold_patients(patients: Iterable[str | int], k: int, *, seed: int = 0) -> list[list[str]]:
    """Divide patients into k disjoint folds for cross-validation whose sizes differ by one at most.

    >>> [len(fold) for fold in fold_patients(range(10), 3)]
    [4, 3, 3]
    """
    ranked = _ranked(patients, seed)
    if not 2 <= k <= len(ranked):
        raise ValueError(f"Got k={k} folds for {len(ranked)} patients; choose 2 <= k <= the number of patients.")
    return [sorted(ranked[i::k]) for i in range(k)]


def _ranked(patients: Iterable[str | int], seed: int) -> list[str]:
    return sorted(
        {str(patient) for patient in patients}, key=lambda patient: (stable_hash(f"{seed}/{patient}"), patient)
    )
