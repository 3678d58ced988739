"""The probes whose places the settings name: Envoys whose admin address can be reached directly, and evidence that was saved beside a cluster."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from bot.probes import Probe, envoy, saved
from checks.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bot.probes.envoy import Where
    from bot.settings import RegisteredCluster
    from checks.diagnosis import Diagnosis


def probes(clusters: Sequence[RegisteredCluster], diagnosis: Diagnosis) -> list[Probe]:
    """Those of the clusters that an answer is about; what they read of other hosts is passed over."""
    found: list[Probe] = []
    asked = {c.name.partition("/")[0] for c in diagnosis.clusters}
    for cluster in (c for c in clusters if c.name in asked):
        if cluster.envoys:
            wheres = [envoy.Where.parse(text, cluster=cluster.name) for text in cluster.envoys]
            found.append(Probe("envoy", cluster.name, partial(_envoys, wheres)))
        if cluster.evidence is not None:
            found.append(Probe("logs", cluster.name, partial(_saved, cluster.evidence, cluster.name)))
    return found


async def _envoys(wheres: Sequence[Where]) -> Evidence:
    views, skipped = await envoy.read(wheres)
    return Evidence(envoys=views, skipped=skipped)


async def _saved(path: Path, cluster: str) -> Evidence:
    return await asyncio.to_thread(saved.read, path, cluster=cluster)
