"""Which Istio a cluster runs, and what follows from it: versions of images, switches, revisions that are kept apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from checks import diagnosis, planes, resources
from checks.mesh import Change, Cluster, Mesh
from checks.planes import Plane, Version
from checks.resources import Deployment

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


def test_a_new_image_of_istiod_changes_what_is_known() -> None:
    before = mesh([istiod("istio/pilot:1.30.0"), *cart(ready=False)])
    assert not before.istiod("east").plane.sends_unhealthy
    (new,) = resources.objects(resources.parse(istiod("istio/pilot:1.31.0")))
    after = before.apply([Change("east", Deployment, "istio-system", "istiod-default", new)])
    assert after.istiod("east").plane == Plane("default", Version(1, 31))


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
