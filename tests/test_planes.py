"""Which Istio a cluster runs, and what follows from it: versions of images, switches, revisions that are kept apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from checks import diagnosis, planes, resources
from checks.istiod import Proxy
from checks.mesh import Change, Cluster, Mesh
from checks.planes import Plane, Version
from checks.resources import Deployment, Pod
from templates import messages, terminal, words

if TYPE_CHECKING:
    from collections.abc import Iterable

Json = dict[str, Any]


def item(
    api: str, kind: str, namespace: str, name: str, labels: Json | None = None, annotations: Json | None = None, **fields: Any
) -> Json:
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}, "annotations": annotations or {}}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **fields}


def istiod(image: str, revision: str = "default", env: Json | None = None) -> Json:
    container = {"name": "discovery", "image": image, "env": [{"name": k, "value": v} for k, v in (env or {}).items()]}
    labels = {"app": "istiod", "istio.io/rev": revision}
    return item(
        "apps/v1", "Deployment", "istio-system", f"istiod-{revision}", labels, spec={"template": {"spec": {"containers": [container]}}}
    )


def pod(name: str, ip: str, *, ready: bool, revision: str = "", image: str = "proxyv2") -> Json:
    annotations = {"sidecar.istio.io/status": f'{{"revision":"{revision}"}}'}
    status = {"podIP": ip, "conditions": [{"type": "Ready", "status": str(ready)}]}
    spec = {"containers": [{"name": "istio-proxy", "image": image}]}
    return item("v1", "Pod", "shop", name, {"app": "cart"}, annotations, spec=spec, status=status)


def cart(*, ready: bool = True) -> list[Json]:
    endpoint = {
        "addresses": ["10.0.0.1"],
        "conditions": {"ready": ready, "terminating": False},
        "targetRef": {"kind": "Pod", "name": "cart"},
    }
    labels = {"kubernetes.io/service-name": "cart"}
    ports = [{"name": "http", "port": 8080}]
    return [
        pod("cart", "10.0.0.1", ready=ready),
        item(
            "v1",
            "Service",
            "shop",
            "cart",
            spec={"clusterIP": "10.9.0.1", "selector": {"app": "cart"}, "ports": [{"name": "http", "port": 80}]},
        ),
        item("discovery.k8s.io/v1", "EndpointSlice", "shop", "cart-1", labels, endpoints=[endpoint], ports=ports),
    ]


def mesh(items: Iterable[Json]) -> Mesh:
    parsed = [r for i in items for r in resources.objects(resources.parse(i))]
    return Mesh("", [Cluster("east", objects=Cluster.index(parsed))], 0.0)


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("docker.io/istio/pilot:1.28.0", Version(1, 28)),
        ("registry.example:5000/istio/pilot:1.31.2-distroless", Version(1, 31)),
        ("gcr.io/istio-release/pilot:v1.30-alpha.8ab1", Version(1, 30)),
        ("registry.example:5000/pilot", None),
        ("docker.io/istio/pilot:latest", None),
        ("docker.io/istio/pilot@sha256:1.2", None),
        ("", None),
    ],
)
def test_an_images_tag_says_the_version(image: str, version: Version | None) -> None:
    assert planes.version(image) == version


def test_a_cluster_runs_the_istio_of_its_istiods_image_else_of_its_oldest_proxy() -> None:
    proxies = [
        pod("a", "10.0.0.8", ready=True, image="istio/proxyv2:1.30.1"),
        pod("b", "10.0.0.9", ready=True, image="istio/proxyv2:1.29.0"),
    ]
    own = mesh([istiod("istio/pilot:1.31.0"), *proxies])
    assert own.version(own.clusters[0]) == Version(1, 31)
    assert str(own.version(own.clusters[0])) == "1.31"
    bare = mesh(proxies)
    assert bare.version(bare.clusters[0]) == Version(1, 29)
    unknown = mesh([istiod("istio/pilot:latest")])
    assert unknown.version(unknown.clusters[0]) is None


@pytest.mark.parametrize(
    ("image", "env", "sent"),
    [
        ("istio/pilot:1.30.4", {}, []),
        ("istio/pilot:1.31.0", {}, ["unhealthy"]),
        ("istio/pilot:latest", {}, ["unhealthy"]),
        ("istio/pilot:1.31.0", {"PILOT_AUTO_SEND_UNHEALTHY_ENDPOINTS": "false"}, []),
        ("istio/pilot:1.28.0", {"PILOT_SEND_UNHEALTHY_ENDPOINTS": "true"}, ["unhealthy"]),
    ],
)
def test_endpoints_that_are_not_ready_are_sent_from_1_31_on(image: str, env: Json, sent: list[str]) -> None:
    (route,) = diagnosis.diagnose("cart.shop.svc.cluster.local", mesh([istiod(image, env=env), *cart(ready=False)])).routes
    assert [e.state for e in route.destinations[0].endpoints] == sent
    assert route.failing_share == 1


@pytest.mark.parametrize(("image", "namespace"), [("istio/pilot:1.29.9", "a-first"), ("istio/pilot:1.30.0", "b-older")])
def test_before_1_30_a_host_of_several_namespaces_is_taken_from_the_first_by_name(image: str, namespace: str) -> None:
    entries = [
        item(
            "networking.istio.io/v1",
            "ServiceEntry",
            ns,
            "api",
            spec={"hosts": ["api.example.com"], "ports": [{"number": 80, "name": "http"}]},
        )
        for ns in ("a-first", "b-older")
    ]
    entries[0]["metadata"]["creationTimestamp"] = "2026-02-01T00:00:00Z"
    entries[1]["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert mesh([istiod(image), *entries]).istiod("east").best_namespace("api.example.com", "shop") == namespace


@pytest.mark.parametrize(
    ("image", "hosts", "ports", "namespace"),
    [
        ("istio/pilot:1.31.0", ["shop/api.example.com"], [80], "shop"),
        ("istio/pilot:1.30.0", ["shop/api.example.com"], [80, 81], "shop"),
        ("istio/pilot:1.31.0", ["shop/api.example.com", "shop/*.example.org"], [80, 81], "shop"),
        ("istio/pilot:1.31.0", ["shop/*"], [80, 81], "shop"),
        ("istio/pilot:1.31.0", ["shop/api.example.com", "other/api.example.com"], [82], "other"),
        ("istio/pilot:1.30.0", ["shop/api.example.com", "other/api.example.com"], [80, 81], "shop"),
        ("istio/pilot:1.31.0", ["shop/api.example.com", "*/b.example.com"], [80, 81], "shop"),
        ("istio/pilot:1.31.0", ["shop/api.example.com", "~*/b.example.com"], [80], "shop"),
    ],
)
def test_from_1_31_on_a_sidecar_whose_hosts_are_all_written_out_gets_one_service_of_each(
    image: str, hosts: list[str], ports: list[int], namespace: str
) -> None:
    """pilot/pkg/model/sidecar.go, servicesForExactHosts: found by host and namespace, the oldest first whomever they are exported to."""
    entries = [
        item("networking.istio.io/v1", "ServiceEntry", ns, f"e{port}", spec={"hosts": ["api.example.com"], "exportTo": to, "ports": [p]})
        for ns, port, to in (("other", 82, ["*"]), ("shop", 80, ["client"]), ("shop", 81, ["client"]))
        for p in [{"number": port, "name": f"http-{port}", "protocol": "HTTP"}]
    ]
    for i, e in enumerate(entries):
        e["metadata"]["creationTimestamp"] = f"2026-01-0{i + 1}T00:00:00Z"
    sidecar = item("networking.istio.io/v1", "Sidecar", "client", "default", spec={"egress": [{"hosts": hosts}]})
    scope = mesh([istiod(image), *entries, sidecar]).istiod("east").scope(Proxy("sidecar", "east", "client", "", {}))
    found = scope.services["api.example.com"]
    assert ([p.number for p in found.ports], found.namespace) == (ports, namespace)


@pytest.mark.parametrize(
    ("image", "said", "export_to", "seen"),
    [
        ("istio/pilot:1.31.0", {"defaultVisibility": "NAMESPACE", "applyToSidecars": True}, None, ["shop"]),
        ("istio/pilot:1.30.0", {"defaultVisibility": "NAMESPACE", "applyToSidecars": True}, None, ["client", "shop"]),
        ("istio/pilot:1.31.0", {"defaultVisibility": "NAMESPACE"}, None, ["client", "shop"]),
        ("istio/pilot:1.31.0", {"defaultVisibility": "NONE", "applyToSidecars": True}, None, []),
        ("istio/pilot:1.31.0", {"defaultVisibility": "NAMESPACE", "applyToSidecars": True}, ["client"], []),
        ("istio/pilot:1.31.0", {"defaultVisibility": "PUBLIC", "applyToSidecars": True}, ["."], ["shop"]),
        ("istio/pilot:1.31.0", {"applyToSidecars": True, "policies": [("NONE", {"team": "a"})]}, None, []),
        ("istio/pilot:1.31.0", {"applyToSidecars": True, "policies": [("NONE", {"team": "b"}), ("NAMESPACE", {})]}, None, ["shop"]),
    ],
)
def test_from_1_31_on_the_mesh_may_narrow_whom_service_entries_are_for(
    image: str, said: Json, export_to: list[str] | None, seen: list[str]
) -> None:
    """pilot/pkg/model/{push_context,serviceentry_visibility}.go: serviceExportTo, VisibilityFor."""
    policies = [
        {"visibility": v, "matchingRules": [{"namespaceSelector": {"matchLabels": labels}}] if labels else []}
        for v, labels in said.get("policies", [])
    ]
    text = msgspec.json.encode({"serviceEntryVisibility": {**said, "policies": policies}}).decode()
    spec = {"hosts": ["api.example.com"], "ports": [{"number": 80, "name": "http"}], "exportTo": export_to}
    items = [
        istiod(image),
        item("v1", "ConfigMap", "istio-system", "istio", data={"mesh": text}),
        item("v1", "Namespace", "", "shop", {"team": "a"}),
        item("networking.istio.io/v1", "ServiceEntry", "shop", "api", spec=spec),
    ]
    one = mesh(items).istiod("east")
    scopes = {ns: one.scope(Proxy("sidecar", "east", ns, "", {})) for ns in ("client", "shop")}
    assert [ns for ns, s in scopes.items() if "api.example.com" in s.services] == seen
    assert one.capped(one.services[0]) is (seen != ["client", "shop"] and export_to != ["."])


@pytest.mark.parametrize(("env", "subsets"), [({}, [["v1"], ["v2"]]), ({"ENABLE_ENHANCED_DESTINATIONRULE_MERGE": "false"}, [["v1", "v2"]])])
def test_rules_of_other_callers_are_merged_only_where_istiod_is_told_to(env: Json, subsets: list[list[str]]) -> None:
    """pilot/pkg/model/destination_rule.go, mergeDestinationRule."""
    rules = [
        item("networking.istio.io/v1", "DestinationRule", "shop", f"r{v}", spec={"host": "cart", "subsets": [{"name": v}], "exportTo": to})
        for v, to in (("v1", ["*"]), ("v2", ["client"]))
    ]
    one = mesh([istiod("istio/pilot:1.31.0", env=env), *cart(), *rules]).istiod("east")
    found = one.destination_rules("client", one.by_host["cart.shop.svc.cluster.local"][0])
    assert [[s.name for s in m.subsets] for m in found] == subsets


@pytest.mark.parametrize(("env", "namespace"), [({}, "shop"), ({"PILOT_UNIFIED_SIDECAR_SCOPE": "false"}, "other")])
def test_a_sidecars_listener_prefers_the_kubernetes_service_unless_istiod_is_told_not_to(env: Json, namespace: str) -> None:
    """pilot/pkg/model/sidecar.go, selectServices."""
    spec = {"hosts": ["cart.shop.svc.cluster.local"], "ports": [{"number": 80, "name": "http"}]}
    entry = item("networking.istio.io/v1", "ServiceEntry", "other", "cart", spec=spec)
    items = [*cart(), entry]
    items[1]["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    known = mesh([istiod("istio/pilot:1.31.0", env=env), *items]).istiod("east")
    (listener,) = known.scope(Proxy("sidecar", "east", "client", "", {})).listeners
    assert [s.namespace for s in listener.services if s.name.startswith("cart")] == [namespace]


@pytest.mark.parametrize(("env", "sent"), [({}, []), ({"PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES": "true"}, ["10.0.0.1:8080"])])
def test_endpoints_of_headless_services_are_sent_only_where_istiod_is_told_to(env: Json, sent: list[str]) -> None:
    """pilot/pkg/networking/core/cluster_builder.go, convertResolution."""
    headless = cart()
    headless[1]["spec"]["clusterIP"] = "None"
    found = diagnosis.diagnose("cart.shop.svc.cluster.local", mesh([istiod("istio/pilot:1.31.0", env=env), *headless])).routes
    assert [e.address for e in found[0].destinations[0].endpoints] == sent
    assert found[0].destinations[0].usable


def test_a_new_image_of_istiod_changes_what_is_known() -> None:
    before = mesh([istiod("istio/pilot:1.30.0"), *cart(ready=False)])
    assert not before.istiod("east").plane.sends_unhealthy
    (new,) = resources.objects(resources.parse(istiod("istio/pilot:1.31.0")))
    after = before.apply([Change("east", Deployment, "istio-system", "istiod-default", new)])
    assert after.istiod("east").plane == Plane("default", Version(1, 31), namespace="istio-system")


def test_revisions_are_kept_apart() -> None:
    def rule(name: str, labels: Json) -> Json:
        return item("networking.istio.io/v1", "DestinationRule", "shop", name, labels, spec={"host": name})

    rules = [
        rule("all", {}),
        rule("old", {"istio.io/rev": "default"}),
        rule("new", {"istio.io/rev": "canary"}),
        rule("tag", {"istio.io/rev": "prod"}),
    ]
    found = mesh(
        [
            istiod("istio/pilot:1.30.0"),
            istiod("istio/pilot:1.31.0", "canary"),
            *rules,
            pod("a", "10.0.0.8", ready=True, revision="canary"),
            pod("b", "10.0.0.9", ready=True, revision="default"),
        ]
    )
    assert sorted(r.name for r in found.istiod("east").all(resources.DestinationRule)) == ["all", "old"]
    assert sorted(r.name for r in found.istiod("east", "canary").all(resources.DestinationRule)) == ["all", "new"]
    assert sorted(r.name for r in found.istiod("east").unheard) == ["new", "tag"]
    cluster = found.clusters[0]
    proxies = {p.name: found.revision(cluster, p) for p in cluster.all(resources.Pod)}
    assert proxies == {"a": "canary", "b": ""}
    assert [p.version for p in found.planes(cluster)] == [Version(1, 31), Version(1, 30)]


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("registry.redhat.io/openshift-service-mesh/pilot-rhel8:2.4.5-3", Version(1, 16)),
        ("quay.io/maistra/pilot-ubi8:2.6.0", Version(1, 20)),
        ("registry.redhat.io/openshift-service-mesh/istio-pilot-rhel9:3.1.0", Version(1, 26)),
        ("docker.io/istio/pilot:1.28.0-distroless", Version(1, 28)),
        ("gcr.io/istio-testing/pilot:1.29-alpine", Version(1, 29)),
        ("registry.example/pilot:7.1", None),
    ],
)
def test_openshifts_releases_stand_for_istios(image: str, version: Version | None) -> None:
    assert planes.version(image) == version


def digest(labels: Json | None = None) -> Json:
    made = istiod("registry.example/pilot@sha256:0f1e")
    made["metadata"]["labels"] |= labels or {}
    return made


@pytest.mark.parametrize(
    ("beside", "version"),
    [
        ([digest({"app.kubernetes.io/version": "1.29.1"})], Version(1, 29)),
        ([digest({"maistra-version": "2.5.0"})], Version(1, 18)),
        (
            [
                digest(),
                {
                    "apiVersion": "sailoperator.io/v1",
                    "kind": "IstioRevision",
                    "metadata": {"name": "default"},
                    "spec": {"version": "v1.24.3", "namespace": "istio-system"},
                },
            ],
            Version(1, 24),
        ),
        ([digest(), item("maistra.io/v2", "ServiceMeshControlPlane", "istio-system", "default", spec={"version": "v2.6"})], Version(1, 20)),
        ([digest(), pod("cart", "10.0.0.1", ready=True, image="proxyv2:1.27.3")], Version(1, 27)),
        ([digest(), pod("cart", "10.0.0.1", ready=True, image="proxyv2@sha256:1a")], None),
    ],
)
def test_a_digest_leaves_the_version_to_what_stands_beside_it(beside: list[Json], version: Version | None) -> None:
    found = mesh(beside)
    (plane,) = found.planes(found.clusters[0])
    assert plane.version == version
    assert found.istiod("east").plane.version == version
    assert plane.guessed == (version in {Version(1, 27), None})


def test_a_newer_proxy_makes_an_istiod_of_no_known_version_newer() -> None:
    found = mesh([digest(), *cart(ready=False), pod("old", "10.0.0.9", ready=True, image="proxyv2:1.30.0")])
    before = found.istiod("east")
    assert diagnosis.routes([found], "cart.shop")[0].destinations[0].endpoints == ()
    (new,) = resources.objects(resources.parse(pod("new", "10.0.0.10", ready=True, image="proxyv2:1.31.0")))
    after = found.apply([Change("east", type(new), "shop", "new", new)])
    assert after.istiod("east") is not before
    assert [e.state for e in diagnosis.routes([after], "cart.shop")[0].destinations[0].endpoints] == ["unhealthy"]
    (same,) = resources.objects(resources.parse(pod("more", "10.0.0.11", ready=True, image="proxyv2:1.31.0")))
    assert after.apply([Change("east", type(same), "shop", "more", same)]).istiod("east") is after.istiod("east")


@pytest.mark.parametrize(
    ("items", "version", "said"),
    [
        (
            [istiod("pilot:1.28.0"), *cart()],
            "1.28",
            "the ConfigMap of the control plane of east was not seen: Istio's default settings are assumed",
        ),
        ([digest()], "", "the control plane of east does not say its version: answers follow the newest Istio"),
        (
            [digest(), pod("a", "10.0.0.1", ready=True, image="proxyv2:1.27.0")],
            "1.27",
            "the control plane of east does not say its version: it is taken for that of its proxies, 1.27",
        ),
        (
            [istiod("pilot:1.28.0"), pod("a", "10.0.0.1", ready=True, image="proxyv2:1.26.0")],
            "1.28",
            "proxies in east run 1.26: what older ones do otherwise is not considered",
        ),
        (cart(), "", "which Istio runs in east is not known: answers follow the newest"),
        (
            [pod("a", "10.0.0.1", ready=True, image="proxyv2:1.26.0")],
            "",
            "no istiod of east was seen, whose proxies run 1.26: answers follow the newest Istio",
        ),
    ],
)
def test_an_answer_says_which_istio_it_speaks_for_and_what_that_leaves_open(items: list[Json], version: str, said: str) -> None:
    found = mesh(items)
    (told,) = diagnosis.sweep(found).clusters
    assert told.istio == version
    assert said in told.open


def test_what_is_known_of_istio_is_in_every_answer_and_in_the_list_of_clusters() -> None:
    plain = msgspec.to_builtins(diagnosis.why("cart.shop", [mesh([digest(), *cart()])]))
    sentence = "The control plane of east does not say its version: answers follow the newest Istio."
    assert sentence in " ".join(terminal.why(plain, colour=False).split())
    assert sentence in str(messages.why(plain).blocks)
    two = [{"name": "east", "istio": "1.28", "open": ()}, {"name": "west", "istio": "1.30", "open": ()}]
    assert words.spoken_for(two) == "Answered for Istio 1.28 (east), 1.30 (west)."
    assert words.spoken_for(two[:1]) == "Answered for Istio 1.28."
    shown = {"name": "east", "mesh": "", "synced": True, "age_s": 0, "objects": 3, "unreadable": {}}
    told = messages.clusters([{**shown, "istio": "1.28", "proxies": ("1.27", "1.28"), "open": ("a thing",)}])
    assert "Istio 1.28, proxies 1.27 and 1.28" in str(told.blocks)
    assert "not known: a thing" in str(told.blocks)


def test_several_control_planes_are_told_by_their_revisions() -> None:
    found = mesh([istiod("pilot:1.28.0"), istiod("pilot:1.30.0", "canary")])
    assert planes.told(found.planes(found.clusters[0])) == "1.28 and 1.30 (revision canary)"


# --- revision tags ------------------------------------------------------------------------------------------------------------


def webhook(tag: str, revision: str) -> Json:
    labels = {"istio.io/tag": tag, "istio.io/rev": revision}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": f"istio-revision-tag-{tag}", "labels": labels},
    }


def test_a_tag_is_another_name_of_a_revision() -> None:
    tagged = item("v1", "Pod", "shop", "by-tag", {"istio.io/rev": "prod"}, spec={"containers": [{"name": "istio-proxy"}]})
    found = mesh([istiod("pilot:1.28.0"), istiod("pilot:1.30.0", "canary"), webhook("prod", "canary"), tagged])
    east = found.clusters[0]
    assert found.tags(east) == {"prod": "canary"}
    assert found.revision(east, east.within(Pod, "shop")["by-tag"]) == "canary"
    service = item("v1", "Service", "istio-system", "istiod-revision-tag-prod", {"istio.io/tag": "prod", "istio.io/rev": "canary"})
    beside = mesh([istiod("pilot:1.28.0"), istiod("pilot:1.30.0", "canary"), service])
    assert beside.tags(beside.clusters[0]) == {"prod": "canary"}


@pytest.mark.parametrize(("webhooks", "asks"), [([webhook("prod", "default")], False), ([webhook("other", "default")], True), ([], False)])
def test_a_namespace_that_asks_for_a_revision_that_is_gone_is_told_which_one_runs(webhooks: list[Json], asks: bool) -> None:  # noqa: FBT001 - a column of the table
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web", "labels": {"istio.io/rev": "prod"}}}
    caller = item("v1", "Pod", "web", "web", {"app": "web"}, spec={"containers": [{"name": "app"}]}, status={"podIP": "10.0.0.7"})
    strict = item("security.istio.io/v1", "PeerAuthentication", "istio-system", "default", spec={"mtls": {"mode": "STRICT"}})
    found = mesh([istiod("pilot:1.28.0"), *webhooks, namespace, caller, strict, *cart()])
    (finding,) = (f for f in diagnosis.why("cart.shop", [found]).findings if f.cause == "caller-not-injected")
    assert ("Label namespace web istio.io/rev=default" in finding.fix) == asks
    assert ("no control plane and no revision tag of east is called prod" in finding.evidence) == asks
