"""`clusters`: the registered clusters, how fresh they are, and what cannot be read of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from templates import messages

if TYPE_CHECKING:
    from bot.sweep import Sweeper
    from templates.blocks import Message


async def answer(_: str, sweeper: Sweeper) -> Message:
    """One line for each cluster, in the order of their registration."""
    told = [
        {
            "name": cluster.name,
            "mesh": cluster.mesh,
            "synced": cluster.synced,
            "age_s": max(mesh.read_at - cluster.read_at, 0.0) if cluster.read_at else 0.0,
            "objects": sum(len(space) for spaces in cluster.objects.values() for space in spaces.values()),
            "unreadable": dict(cluster.unreadable),
            "istio": running.version,
            "proxies": running.proxies,
            "open": running.open,
        }
        for mesh in sweeper.meshes()
        for cluster in mesh.clusters
        for running in (mesh.istio(cluster),)
    ]
    return messages.clusters(told)
