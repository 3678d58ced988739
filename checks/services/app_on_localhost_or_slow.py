"""app-on-localhost-or-slow (MESH308)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import short
from checks.finding import Finding, check
from checks.seen import log_command, lost, sources
from checks.services import Refusal, refusals
from checks.subsets import percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.case import Case


@check("app-on-localhost-or-slow")
def app_on_localhost_or_slow(case: Case) -> Iterator[Finding]:
    """A ready pod refuses connections at the very port that its container declares: the app listens on 127.0.0.1 alone, or does not listen yet.

    The port is right, and nobody is there at the pod's address. An app that binds 127.0.0.1 is reached by its own container only; one without a
    readiness probe is called ready before it listens. Its sidecar answers 503 (flag UF, Connection_refused), or the caller's where it has none.

    How to see it: `kubectl exec` into the pod: `ss -ltn` shows the port at 127.0.0.1, or not at all.

    How to fix it: have the app bind 0.0.0.0, and give it a readiness probe at this port.
    """
    groups: dict[tuple[str, str], list[Refusal]] = {}
    for r in refusals(case):
        if r.expected:
            kind, _, name = case.mesh.workload(r.cluster, r.pod).partition(" ")
            groups.setdefault((r.cluster.name, f"{kind} {r.pod.namespace}/{name}"), []).append(r)
    for (cluster, owner), group in groups.items():
        first = group[0]
        part = lost({id(r.calls): r.calls for r in group}.values())
        yield case.finding(
            "app-on-localhost-or-slow",
            cluster=cluster,
            resource=owner,
            path="",
            message=(
                f"{percent(part)} of the requests of a rule to {short(first.calls.branch.upstream.host)} are refused: the app of {owner} does not listen "
                f"on port {first.endpoint.port} of its pod's address, which it declares."
            ),
            share=part,
            viewpoints=case.viewpoints(r.calls.branch for r in group),
            evidence=(
                *sources(r.calls for r in group),
                *dict.fromkeys(
                    f"pod {r.pod.namespace}/{r.pod.name} says that it listens on port {r.endpoint.port}, and is ready" for r in group[:3]
                ),
            ),
            fix=f"Have the app of {owner} listen on 0.0.0.0:{first.endpoint.port}, and give it a readiness probe at this port.",
            commands=(
                log_command(first.calls),
                f"kubectl -n {first.pod.namespace} exec {first.pod.name} -- ss -ltn",
            ),
        )
