"""Slack in: one file for each thing that a person does.

A handler acknowledges, reads the words, asks one thing and answers in Slack. What goes wrong is worded in `errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers import (
    ack,
    audit,
    changes,
    elsewhere,
    errors,
    escalate,
    home,
    mention,
    mesh,
    own,
    pasted,
    patch,
    routes,
    share,
    silence,
    whatif,
    why,
)
from handlers.door import Door

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence
    from typing import Any

    from slack_bolt.async_app import AsyncApp

    from bot.lease import Lease
    from bot.probes import Probe
    from bot.settings import Access
    from bot.shares import Shares
    from bot.store import Store
    from bot.sweep import Sweeper
    from checks.diagnosis import Diagnosis
    from checks.mesh import Mesh


__all__ = ["Door", "hand_on", "register"]


def register(
    app: AsyncApp,
    sweeper: Sweeper,
    store: Store,
    access: Access | None = None,
    teams: Iterable[str] = (),
    probing: Callable[[Diagnosis, Sequence[Mesh]], Sequence[Probe]] = lambda *_: (),
) -> Door:
    """Teach the app everything that people may do, as far as `access` lets them, and answer `teams` beside its own workspace.

    `probing` says what of running parts can be asked about a host.
    The app is to be made with `raise_error_for_unhandled_request=True` (else Bolt logs the body of what nobody handles) and with a client
    without retry handlers (slack_sdk's own would post a second time when a connection breaks).
    """
    door = Door(app.client, sweeper, store, access, teams, probing)
    for thing in (ack, audit, changes, escalate, home, mesh, mention, own, pasted, patch, routes, share, silence, whatif, why):
        thing.register(app, door)
    errors.register(app)
    return door


def hand_on(app: AsyncApp, door: Door, shares: Shares, lease: Lease) -> Callable[[], Coroutine[Any, Any, None]]:
    """Of several bots that share the clusters: hand on what others can answer; what is returned takes in what they hand to us, until cancelled."""
    return elsewhere.register(app, door, shares, lease)
