"""subset-by-topology-label (MESH116)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.case import Branch, Case, endpoints_command, short
from checks.finding import Finding, check, explained, explains
from checks.registry import CLUSTER, NETWORK, NODE, REGION, SUBZONE, ZONE
from checks.resources import DestinationRule, Node, VirtualService
from checks.subsets import carriers, definition, labels, nobody, percent, proof, shown, wanted_labels, words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.registry import IstioEndpoint

TOPOLOGY = (CLUSTER, NETWORK, REGION, ZONE, SUBZONE, NODE)


@explains(
    "subset-by-topology-label", before=("subset-on-serviceentry", "subset-label-not-on-pods", "subset-empty-weighted", "subset-empty-all")
)
def _explains(case: Case, branch: Branch) -> bool:
    if not nobody(case, branch):
        return False
    wrong = _wrong(case, branch)
    rest = {k: v for k, v in wanted_labels(branch.upstream).items() if k not in wrong}
    return bool(wrong) and bool(carriers(case, branch, rest))


@check("subset-by-topology-label", when=explained)
def subset_by_topology_label(case: Case) -> Iterator[Finding]:
    """A subset is defined by a topology label with a value that no endpoint of the mesh gets.

    `topology.istio.io/cluster` and `network`, region, zone, subzone and host are labels that istiod adds to endpoints itself, from the cluster's
    ID (`CLUSTER_ID` of istiod, not the name in a kubeconfig), from the network's name and from the labels of the nodes. A value that none of
    them has leaves the subset empty: 503 "no healthy upstream" (flag UH).

    How to see it: `istioctl proxy-config endpoints <pod> -o json` shows the locality and cluster of each endpoint; `kubectl get nodes
    --show-labels` shows region and zone.

    How to fix it: use the value that the endpoints carry.
    """
    for branches in case.caused("subset-by-topology-label"):
        first = branches[0]
        u, share = first.upstream, case.share(branches)
        wrong = _wrong(case, first)
        real = {k: sorted({e.labels[k] for e in _endpoints(case, first) if k in e.labels}) for k in wrong}
        rule, index = definition(u)
        right = {k: (real[k][0] if k in real and len(real[k]) == 1 else v) for k, v in wanted_labels(u).items()}
        known = " and ".join(f"{k} is {' or '.join(v)}" if v else f"no endpoint has {k}" for k, v in real.items())
        yield case.finding(
            "subset-by-topology-label",
            cluster=case.cluster_of(first),
            resource=rule.ref,
            path=f"spec.subsets[{index}].labels",
            message=(
                f"{percent(share)} of the requests of a rule go to subset {u.subset} of {short(u.host)}, which has no endpoint: "
                f"nothing in the mesh is labelled {words(wrong)}; of its endpoints, {known}."
            ),
            share=share,
            viewpoints=case.viewpoints(branches),
            evidence=(*proof(case, first), f"of the endpoints of {short(u.host)}, {known}"),
            fix=f"Write {words({k: v for k, v in right.items() if k in wrong})} in subset {u.subset} of {rule.ref}."
            if right != wanted_labels(u)
            else f"Use a value that endpoints of {short(u.host)} carry in place of {labels(u)}.",
            patch=case.patch(case.cluster_of(first), rule, (("spec", "subsets", index, "labels"), right)),
            commands=(endpoints_command(u), "kubectl get nodes --show-labels"),
        )
    shown(case, VirtualService, DestinationRule)
    shown(case, Node, everywhere=True)


def _endpoints(case: Case, branch: Branch) -> list[IstioEndpoint]:
    service = branch.upstream.service
    return list(case.endpoints(branch.view.ups.istiod, service)) if service else []


def _wrong(case: Case, branch: Branch) -> dict[str, str]:
    """The topology labels of a subset whose value nothing in the mesh has."""
    return {k: v for k, v in wanted_labels(branch.upstream).items() if k in TOPOLOGY and not _exists(case, branch, k, v)}


def _exists(case: Case, branch: Branch, key: str, value: str) -> bool:
    """Whether a cluster, network, node or locality of this name exists, so that endpoints could carry it."""
    if any(e.carries(key, value) for e in _endpoints(case, branch)):
        return True
    mesh = case.mesh
    if any(mesh.unread(c, Node) for c in mesh.clusters):
        return True
    if key == CLUSTER:
        return value in {mesh.cluster_id(c) for c in mesh.clusters}
    if key == NETWORK:
        return value in {mesh.network(c, "", {}) for c in mesh.clusters} | {g.network for g in mesh.network_gateways}
    return any((n.labels.get(key) or (n.name if key == NODE else "")) == value for c in mesh.clusters for n in c.all(Node))
