"""Splits and folds by patient: the same in every process, on every machine, under every Python version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

__all__ = ["SPLITS", "Split", "fold_patients", "rotate_folds", "split_patients", "stable_hash"]

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


def rotate_folds(folds: Sequence[Iterable[str]], fold: int) -> dict[str, list[str]]:
    """Test on one fold, validate on the next one (the last one's next is the first), train on the rest.

    Over k runs, ``fold`` = 0 to k - 1, every patient is tested once and validates once, and no run chooses anything
    (epoch, early stop) by the fold that it reports. Tables of "k-fold 90/10" often do: they have two parts only.

    >>> rotate_folds([["a"], ["b"], ["c"], ["d"]], 3)
    {'train': ['b', 'c'], 'val': ['a'], 'test': ['d']}
    """
    following = (fold + 1) % len(folds)
    rest = (part for index, part in enumerate(folds) if index not in (fold, following))
    return {"train": sorted(chain(*rest)), "val": sorted(folds[following]), "test": sorted(folds[fold])}


@dataclass(frozen=True)
class Split:
    """Which part of a data set a loader is asked for; the one place where all loaders choose patients.

    Without ``folds`` that is the source's own split, where it has one, else a seeded split of 70, 15 and 15 %. With
    ``folds`` = k it is a cross-validation: all patients, whatever the source's own split, are dealt into k folds, of
    which ``rotate_folds`` makes train, val and test.

    Args:
        name: "train", "val" or "test".
        folds: k, at least 3, or None for a single split.
        fold: the fold to test on, 0 to k - 1.
        seed: of the split or the folds.
    """

    name: str
    folds: int | None = None
    fold: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in SPLITS:
            raise ValueError(f"Got split='{self.name}'; choose one of {SPLITS}.")
        if self.folds is None and self.fold != 0:
            raise ValueError(f"Got fold={self.fold} without folds; give their number too, for example folds=10.")
        if self.folds is not None and not (self.folds >= 3 and 0 <= self.fold < self.folds):
            raise ValueError(
                f"Got folds={self.folds}, fold={self.fold}; one fold tests, one validates and the rest trains, so use "
                "folds >= 3 and 0 <= fold < folds."
            )

    @property
    def sources(self) -> tuple[str, ...]:
        """The source's own splits that have to be read: one, or all of them where folds pool them."""
        return (self.name,) if self.folds is None else SPLITS

    def patients(
        self,
        patients: Iterable[str | int] | Mapping[str, Iterable[str | int]],
        *,
        fractions: Sequence[float] = (0.7, 0.15, 0.15),
    ) -> set[str]:
        """Choose the patients of this part.

        Args:
            patients: patient of every case, or, where the source has a split of its own, those of each of its splits.
            fractions: shares of train, val and test where neither the source nor folds say.

        Returns:
            Patients as strings.

        >>> sorted(Split("test").patients({"train": [1, 2], "test": [3, 4]}))
        ['3', '4']
        >>> [len(Split(name, folds=4).patients({"train": range(6), "test": [6, 7]})) for name in SPLITS]
        [4, 2, 2]
        """
        own = patients if isinstance(patients, Mapping) else None
        if self.folds is not None:
            pool = patients if own is None else chain.from_iterable(own.values())
            return set(rotate_folds(fold_patients(pool, self.folds, seed=self.seed), self.fold)[self.name])
        if own is not None:
            return {str(patient) for patient in own.get(self.name, ())}
        return set(split_patients(patients, fractions=fractions, seed=self.seed)[self.name])


def _ranked(patients: Iterable[str | int], seed: int) -> list[str]:
    return sorted(
        {str(patient) for patient in patients}, key=lambda patient: (stable_hash(f"{seed}/{patient}"), patient)
    )
