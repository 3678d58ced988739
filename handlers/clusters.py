"""`clusters`: the registered clusters, how fresh they are, and what cannot be read of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bot import access
from templates import messages

if TYPE_CHECKING:
    from bot.sweep import Sweeper
    from handlers.door import Sees
    from handlers.say import Asked
    from templates.blocks import Message


async def answer(asked: Asked) -> Message:
    """One line for each cluster of which the person may look at anything, in the order of their registration."""
    return messages.clusters(told(asked.sweeper, asked.sees))


def told(sweeper: Sweeper, sees: Sees) -> list[dict[str, Any]]:
    """The clusters of which a person may look at anything, in the form of `messages.clusters`."""
    return [
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
        if sees(access.of_cluster(cluster))
        for running in (mesh.istio(cluster),)
    ]
