"""When two words are most likely one, so that a subset's label is a slip and not a version that is missing."""

from __future__ import annotations

import pytest

from checks.subsets.subset_label_not_on_pods import alike


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Canary", "canary"),
        ("v1", "1"),
        ("v-1", "v1"),
        ("canray", "canary"),
        ("stabel", "stable"),
        ("release-2024", "release_2024"),
        ("V2", "v2"),
    ],
)
def test_a_slip_is_one_word(a: str, b: str) -> None:
    assert alike(a, b)
    assert alike(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("v1", "v2"),
        ("1.10", "1.11"),
        ("release-2024", "release-2025"),
        ("blue", "green"),
        ("v1", "v10"),
        ("stable", "canary"),
        ("web", "wed"),
        ("v", ""),
    ],
)
def test_another_version_is_another_word(a: str, b: str) -> None:
    assert not alike(a, b)
    assert not alike(b, a)
