"""`clusters`: the registered clusters, how fresh they are, and what cannot be read of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot import access
from templates import messages

if TYPE_CHECKING:
    from handlers.say import Asked
    from templates.blocks import Message


async def answer(asked: Asked) -> Message:
    """One line for each cluster of which the person may look at anything, in the order of their registration."""
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
        for mesh in asked.sweeper.meshes()
        for cluster in mesh.clusters
        if asked.sees(access.of_cluster(cluster))
        for running in (mesh.istio(cluster),)
    ]
    return messages.clusters(told)
