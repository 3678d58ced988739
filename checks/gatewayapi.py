"""Gateway API objects in the form of Istio's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from checks.rulesets import RuleSet

if TYPE_CHECKING:
    from checks.istiod import Istiod


@dataclass(frozen=True, slots=True)
class Converted:
    """Routes as rulesets."""

    rulesets: tuple[RuleSet, ...]


def convert(istiod: Istiod) -> Converted:
    """Everything of Gateway API that a control plane has."""
    return Converted(())
