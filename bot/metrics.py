"""What the bot says of itself at `/metrics`, in Prometheus' words.

What must stay true: what is counted is counted where it happens; what is a state is asked for when somebody scrapes, so that it cannot be stale.
Names of clusters and kinds are the only labels that come from outside.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    from bot.alerts import Alert
    from bot.clusters import Watch
    from bot.store import Store
    from checks.mesh import Cluster

COUNTED = CollectorRegistry(auto_describe=True)
LOOK_SECONDS = Histogram(
    "meshwhy_look_seconds",
    "What one look at all meshes took, from the sweep to the commit.",
    registry=COUNTED,
    buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
RUNBOOK_SECONDS = Histogram(
    "meshwhy_runbook_seconds",
    "From the firing of an alert, or from when somebody asked, to the last step of its runbook.",
    registry=COUNTED,
    buckets=(0.1, 0.5, 1, 2.5, 5, 10, 15, 20, 30, 60),
)
LOOK_FAILURES = Counter("meshwhy_look_failures", "Looks that could not be committed.", registry=COUNTED)
SLACK_CALLS = Counter(
    "meshwhy_slack_calls", "Calls of Slack's Web API by the outbox, by method and what came of it.", ["method", "result"], registry=COUNTED
)
RELAYED = Counter("meshwhy_alertmanager_sent", "Requests to Alertmanagers, and what came of them.", ["result"], registry=COUNTED)
HEARD = Counter("meshwhy_alertmanager_heard", "Alerts that Alertmanagers told, and what came of them.", ["result"], registry=COUNTED)
PAGES = Counter("meshwhy_pages", "Answers of pagers, by HTTP status.", ["pager", "status"], registry=COUNTED)
RELOADS = Counter("meshwhy_settings_reloads", "Changed settings files, and whether they could be used.", ["result"], registry=COUNTED)
SETTINGS_REFUSED = Gauge("meshwhy_settings_refused", "Whether the settings file says what cannot be used.", registry=COUNTED)
LAST_LOOK = Gauge("meshwhy_last_look_timestamp_seconds", "When this bot committed a look last; 0: never.", registry=COUNTED)
LAST_POST = Gauge("meshwhy_last_post_timestamp_seconds", "When Slack took something of the outbox last; 0: never.", registry=COUNTED)
WATCH_LAG = Gauge(
    "meshwhy_watch_lag_seconds",
    "Of the last changes of a kind: from when they were gathered to the commit of the look that took them in.",
    ["cluster", "kind"],
    registry=COUNTED,
)
DEEDS = Counter("meshwhy_deeds", "What people did about alerts, by verb.", ["verb"], registry=COUNTED)


class _State:
    """The gauges of one scrape."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


async def page(store: Store, clusters: Callable[[], Sequence[Cluster]], watches: Callable[[], Sequence[Watch]], *, leading: bool) -> bytes:
    """Everything that is counted and everything that is so now, as text."""
    now = time.time()
    try:
        alerts: list[Alert] | None = list((await store.alerts()).values())
        waiting = await store.waiting()
    except (RedisError, OSError):
        alerts, waiting = None, []
    age = GaugeMetricFamily("meshwhy_cluster_age_seconds", "Since the last sign of life of a cluster.", labels=["cluster"])
    synced = GaugeMetricFamily("meshwhy_cluster_synced", "Whether everything of a cluster was read.", labels=["cluster"])
    unread = GaugeMetricFamily(
        "meshwhy_unreadable", "Kinds of a cluster that cannot be read; * is the whole cluster.", labels=["cluster", "kind"]
    )
    for cluster in clusters():
        age.add_metric([cluster.name], max(0.0, now - cluster.read_at) if cluster.read_at else float("inf"))
        synced.add_metric([cluster.name], float(cluster.synced))
        for kind in cluster.unreadable:
            unread.add_metric([cluster.name, kind], 1.0)
    watched = GaugeMetricFamily(
        "meshwhy_watch_age_seconds",
        "Since the last sign of life of a kind of a cluster; * is a cluster in files.",
        labels=["cluster", "kind"],
    )
    for watch in watches():
        watched.add_metric([watch.cluster, watch.kind], max(0.0, now - watch.alive_at))
    lead = GaugeMetricFamily("meshwhy_leading", "Whether this bot keeps the alerts and posts.", value=float(leading))
    up = GaugeMetricFamily("meshwhy_store_up", "Whether the store answers.", value=float(alerts is not None))
    state = GaugeMetricFamily("meshwhy_alerts", "Open alerts by where they stand.", labels=["state"])
    for name, count in Tally(_standing(a) for a in alerts or ()).items():
        state.add_metric([name], float(count))
    depth = GaugeMetricFamily("meshwhy_outbox_messages", "Messages that Slack does not have as they should be.", value=float(len(waiting)))
    late = GaugeMetricFamily(
        "meshwhy_outbox_overdue_seconds", "For how long the first of them is due.", value=max([0.0, *(now - due for _, due in waiting)])
    )
    made = CollectorRegistry()
    made.register(_State(age, synced, unread, watched, lead, up, state, depth, late))
    return generate_latest(COUNTED) + generate_latest(made)


def _standing(alert: Alert) -> str:
    """One word for an alert: what a person would be told first."""
    if alert.unknown_since is not None:
        return "unknown"
    if alert.silence is not None:
        return "silenced"
    if alert.flapping:
        return "flapping"
    return "acknowledged" if alert.ack is not None else alert.state.value
