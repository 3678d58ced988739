"""Which Istio a cluster runs: its control planes, their revisions and versions, and what they do otherwise than the newest.

Versions are read from images, else from what the installer writes beside them, else from the proxies (semantics.md 3.11); what nothing says means
the newest. First releases as in istio/istio's release branches: the best service namespace in 1.30, unhealthy endpoints sent by default and
Gateways merged strictly in 1.31.
OpenShift Service Mesh counts by itself: its releases stand for Istio's (its release notes).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from checks.registry import TRUE
from checks.resources import IstioRevision

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from checks.resources import Container, Deployment, Pod, ServiceMeshControlPlane

REVISION = "istio.io/rev"
TAG = "istio.io/tag"
_TAG = re.compile(r":v?(\d+)\.(\d+)(?:[.\-_]|$)")
_RELEASE = re.compile(r"v?(\d+)\.(\d+)(?:[.\-_]|$)")
_LABELS = ("app.kubernetes.io/version", "maistra-version")
_SWITCHES = frozenset(
    {
        "PILOT_AUTO_SEND_UNHEALTHY_ENDPOINTS",
        "PILOT_ENABLE_GATEWAY_API_STATUS",
        "PILOT_SEND_UNHEALTHY_ENDPOINTS",
        "PILOT_SIDECAR_PICK_BEST_SERVICE_NAMESPACE",
        "ENABLE_MCS_SERVICE_DISCOVERY",
        "ENABLE_MCS_HOST",
        "ENABLE_MCS_CLUSTER_LOCAL",
        "PILOT_FILTER_GATEWAY_CLUSTER_CONFIG",
        "ENABLE_ENHANCED_DESTINATIONRULE_MERGE",
        "PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES",
        "PILOT_UNIFIED_SIDECAR_SCOPE",
        "PILOT_SCOPE_GATEWAY_TO_NAMESPACE",
        "PILOT_ENABLE_STRICT_GATEWAY_MERGING",
        "ENABLE_GATEWAY_API_INFERENCE_EXTENSION",
        "AMBIENT_ENABLE_MULTI_NETWORK",
        "ENABLE_INGRESS_WAYPOINT_ROUTING",
        "PILOT_ENABLE_ALPHA_GATEWAY_API",
    }
)


class Version(NamedTuple):
    """A release of Istio: `1.30`."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


_OPENSHIFT = {
    Version(2, 0): Version(1, 6),
    Version(2, 1): Version(1, 9),
    Version(2, 2): Version(1, 12),
    Version(2, 3): Version(1, 14),
    Version(2, 4): Version(1, 16),
    Version(2, 5): Version(1, 18),
    Version(2, 6): Version(1, 20),
    Version(3, 0): Version(1, 24),
    Version(3, 1): Version(1, 26),
    Version(3, 2): Version(1, 27),
}
"""Which Istio a release of OpenShift Service Mesh is."""


class Plane(NamedTuple):
    """One istiod: its revision (empty when it does not say), its version (None when nothing says), the switches that it was given, its namespace.

    `guessed`: the version is that of its newest proxy, since nothing of its own says one; istiod is that new at least.
    """

    revision: str
    version: Version | None
    switches: tuple[tuple[str, str], ...] = ()
    namespace: str = ""
    guessed: bool = False

    def _told(self, switch: str) -> bool:
        """Whether it was told to do what no release does by itself."""
        return bool(self.switches) and any(name == switch and value in TRUE for name, value in self.switches)

    def _does(self, switch: str, since: Version) -> bool:
        """Whether it does what a release began to do, unless it was told otherwise."""
        for name, value in self.switches:
            if name == switch:
                return value in TRUE
        return self.version is None or self.version >= since

    @property
    def sends_unhealthy(self) -> bool:
        """Whether endpoints that are not ready are sent, as unhealthy ones."""
        return ("PILOT_SEND_UNHEALTHY_ENDPOINTS", "true") in self.switches or self._does(
            "PILOT_AUTO_SEND_UNHEALTHY_ENDPOINTS", Version(1, 31)
        )

    @property
    def best_namespace(self) -> bool:
        """Whether a host that stands in several namespaces is taken from Kubernetes' own Service or the oldest entry, not from the first name."""
        return self._does("PILOT_SIDECAR_PICK_BEST_SERVICE_NAMESPACE", Version(1, 30))

    @property
    def merges_by_export(self) -> bool:
        """Whether DestinationRules of a host are kept apart where their exportTo differs (features.EnableEnhancedDestinationRuleMerge)."""
        return self._does("ENABLE_ENHANCED_DESTINATIONRULE_MERGE", Version(1, 23))

    @property
    def prefers_kubernetes(self) -> bool:
        """Whether a Kubernetes Service comes before ServiceEntries of its host from other namespaces in a Sidecar's listener (features.UnifiedSidecarScoping)."""
        return self._does("PILOT_UNIFIED_SIDECAR_SCOPE", Version(1, 0))

    @property
    def balances_headless(self) -> bool:
        """Whether sidecars are sent the endpoints of headless Services (features.EnableEDSForHeadless)."""
        return self._told("PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES")

    @property
    def shapes_by_mesh(self) -> bool:
        """Whether MeshConfig's defaultTrafficPolicy and serviceEntryVisibility mean anything to it."""
        return self.version is None or self.version >= Version(1, 31)

    @property
    def checks_network_gateways(self) -> bool:
        """Whether a Service that is labelled as a network's gateway is one only with the port that callers are told of (controller.getGatewayDetails)."""
        return self.version is None or self.version >= Version(1, 29)

    @property
    def looks_up_exact_hosts(self) -> bool:
        """Whether a Sidecar whose hosts are all written out gets one service for each host and namespace (model.servicesForExactHosts)."""
        return self.version is None or self.version >= Version(1, 31)

    @property
    def writes_status(self) -> bool:
        """Whether this is an istiod that was seen running and that writes the status of the Gateway API objects that it reads."""
        return self is not NEWEST and self._does("PILOT_ENABLE_GATEWAY_API_STATUS", Version(1, 0))

    @property
    def newest(self) -> bool:
        """Whether it is of the release that semantics.md describes, or of none that is known."""
        return self.version is None or self.version >= Version(1, 32)

    @property
    def mcs(self) -> bool:
        """Whether a Service's endpoints stay in their cluster until a ServiceExport exports them (features.EnableMCSServiceDiscovery)."""
        return self._told("ENABLE_MCS_SERVICE_DISCOVERY")

    @property
    def mcs_host(self) -> bool:
        """Whether an imported Service is also called by its name in clusterset.local (features.EnableMCSHost)."""
        return self.mcs and self._told("ENABLE_MCS_HOST")

    @property
    def mcs_cluster_local(self) -> bool:
        """Whether its name in cluster.local means the caller's own cluster alone (features.EnableMCSClusterLocal)."""
        return self.mcs_host and self._told("ENABLE_MCS_CLUSTER_LOCAL")

    @property
    def filters_clusters(self) -> bool:
        """Whether gateways get only clusters that a rule of theirs leads to (features.FilterGatewayClusterConfig)."""
        return self._told("PILOT_FILTER_GATEWAY_CLUSTER_CONFIG")

    @property
    def scopes_gateways(self) -> bool:
        """Whether a Gateway is for pods of its own namespace only (features.ScopeGatewayToNamespace)."""
        return self._told("PILOT_SCOPE_GATEWAY_TO_NAMESPACE")

    @property
    def inference(self) -> bool:
        """Whether it serves InferencePools (features.EnableGatewayAPIInferenceExtension)."""
        return self._told("ENABLE_GATEWAY_API_INFERENCE_EXTENSION")

    @property
    def multi_network(self) -> bool:
        """Whether its ambient mesh reaches into other networks and clusters (features.EnableAmbientMultiNetwork)."""
        return self._told("AMBIENT_ENABLE_MULTI_NETWORK")

    @property
    def enters_waypoints(self) -> bool:
        """Whether gateways go through the waypoints of services that ask for it (features.EnableIngressWaypointRouting)."""
        return self._does("ENABLE_INGRESS_WAYPOINT_ROUTING", Version(1, 24))

    @property
    def canary_waypoints(self) -> bool:
        """Whether a second waypoint may take a part of a service's connections (ambient/waypoints.go)."""
        return self.version is None or self.version >= Version(1, 31)

    @property
    def gateway_api_15(self) -> bool:
        """Whether it is built with Gateway API 1.5: HTTPRoutes and GRPCRoutes of a host are one list, a listener that an earlier one of its Gateway excludes is left out, one that terminates TLS takes TLSRoutes (gateway/controller.go, gatewaycommon)."""
        return self.version is None or self.version >= Version(1, 30)

    @property
    def strict_merging(self) -> bool:
        """Whether pods that it made for the Gateway API take Istio Gateways of their own namespace only (features.EnableStrictGatewayMerging)."""
        return self._does("PILOT_ENABLE_STRICT_GATEWAY_MERGING", Version(1, 31))

    @property
    def takes_backend_tls(self) -> bool:
        """Whether BackendTLSPolicies mean anything to it: since they are v1, before that to one that was told to read what is alpha (release note gtw-140)."""
        return self.version is None or self.version >= Version(1, 28) or self._told("PILOT_ENABLE_ALPHA_GATEWAY_API")

    @property
    def fills_in_policies(self) -> bool:
        """Whether a DestinationRule's own settings come before those of a BackendTLSPolicy, which may as well be annotated as somebody else's (release notes 60358, 57817)."""
        return self.version is None or self.version >= Version(1, 31)


NEWEST = Plane("", None)


@lru_cache(maxsize=1 << 12)
def version(image: str) -> Version | None:
    """The release that an image's tag names; None for a digest, `latest` or a build of one's own."""
    return _istio(_TAG.search(image.partition("@")[0]))


def release(text: str) -> Version | None:
    """The release that a label or a field names: `1.28.0`, `v2.4`; None for anything else."""
    return _istio(_RELEASE.match(text))


def _istio(found: re.Match[str] | None) -> Version | None:
    said = Version(int(found[1]), int(found[2])) if found else None
    return said if said is None or said.major == 1 else _OPENSHIFT.get(said)


def planes(
    deployments: Iterable[Deployment], pods: Iterable[Pod], installed: Iterable[IstioRevision | ServiceMeshControlPlane] = ()
) -> tuple[Plane, ...]:
    """Every control plane by revision, from istiod's Deployments, else from its pods.

    Its own image says the version, else its labels, else what an operator was told to install in its namespace (`installed`).
    """
    found: dict[str, Plane] = {}
    wanted = {(i.spec.namespace if isinstance(i, IstioRevision) else i.namespace, i.name): release(i.spec.version) for i in installed}
    made = [*((d.spec.template.spec.containers, d) for d in deployments), *((p.spec.containers, p) for p in pods)]
    for containers, one in made:
        if one.labels.get("app") == "istiod":
            plane = _plane(containers, one.labels, one.namespace)
            if plane.version is None:
                plane = plane._replace(version=wanted.get((plane.namespace, plane.revision)))
            found.setdefault(plane.revision, plane)
    return tuple(found[r] for r in sorted(found))


def _plane(containers: Iterable[Container], labels: Mapping[str, str], namespace: str) -> Plane:
    own = [c for c in containers if c.name == "discovery"] or list(containers)
    env = {e.name: e.value for c in own for e in c.env or () if e.value}
    said = (*(version(c.image) for c in own), *(release(labels.get(k, "")) for k in _LABELS))
    switches = tuple(sorted((k, v) for k, v in env.items() if k in _SWITCHES))
    return Plane(labels.get(REVISION) or env.get("REVISION", ""), next(filter(None, said), None), switches, namespace)


def told(known: Iterable[Plane]) -> str:
    """The releases of some control planes: `1.28`, `1.28 and 1.30 (revision canary)`; empty when none is known."""
    said: dict[str, list[str]] = {}
    for p in known:
        if p.version is not None:
            said.setdefault(str(p.version), []).append(p.revision)
    if len(said) < 2:
        return next(iter(said), "")
    return " and ".join(v if "default" in of or "" in of else f"{v} (revision {', '.join(of)})" for v, of in sorted(said.items()))


def proxy_versions(pods: Iterable[Pod]) -> Iterator[Version]:
    """The releases of some pods' proxies."""
    for pod in pods:
        for c in (*pod.spec.containers, *(pod.spec.init_containers or ())):
            if c.name == "istio-proxy" and (found := version(c.image)) is not None:
                yield found


def revision_of(pod: Pod) -> str:
    """The revision that a pod's proxy was injected by, empty when nothing says: the injector's annotation, else its status, else the label."""
    if own := pod.annotations.get(REVISION):
        return own
    status = pod.annotations.get("sidecar.istio.io/status")
    return (_injected_by(status) if status else "") or pod.labels.get(REVISION, "")


@lru_cache(maxsize=1 << 12)
def _injected_by(status: str) -> str:
    found = re.search(r'"revision"\s*:\s*"([^"]*)"', status)
    return found[1] if found else ""
