"""What Kubernetes makes of a change for certain is weighed along, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from checks import diagnosis
from checks.foresight import foreseen
from checks.mesh import Change, Mesh
from checks.resources import Deployment, EndpointSlice, Namespace, Pod, Resource, Service, ServicePort, VirtualService
from tests.test_scenarios import meshes

(WELL,) = meshes("subset-empty-weighted__healthy")
EAST = WELL.clusters[0]
HOST = "cart.shop.svc.cluster.local"


def changed(old: Any, new: Resource | None) -> Change:
    return Change("east", type(old), old.namespace, old.name, new)


def get(kind: type[Any], name: str) -> Any:
    found = EAST.get(kind, "shop", name)
    assert found is not None
    return found


def after(*changes: Change) -> Mesh:
    return WELL.apply(foreseen(WELL, changes))


def addresses(found: Mesh, *, ready: bool = True) -> list[str]:
    """The addresses of the Service's endpoints."""
    slices = found.slices(found.clusters[0], "shop", "cart")
    return sorted(a for s in slices for e in s.endpoints or () for a in e.addresses or () if e.conditions.ready is ready)


def introduced(*changes: Change) -> list[tuple[str, float]]:
    return [(f.cause, f.failing_share) for f in diagnosis.whatif([WELL], changes).introduced]


def deployment(*, replicas: int | None = None, labels: dict[str, str] | None = None) -> Change:
    old: Deployment = get(Deployment, "cart-v2")
    spec = replace(old.spec, replicas=old.wanted if replicas is None else replicas)
    if labels is not None:
        spec = replace(spec, template=replace(spec.template, metadata=replace(spec.template.metadata, labels=labels)))
    return changed(old, replace(old, spec=spec))


def of(name: str) -> list[Pod]:
    return [p for p in EAST.ordered(Pod, "shop") if WELL.workload(EAST, p) == f"Deployment {name}"]


def test_pods_of_a_workload_at_0_replicas_go_with_their_endpoints() -> None:
    lost = {p.status.pod_ip for p in of("cart-v2")}
    assert lost
    assert set(addresses(WELL)) - set(addresses(after(deployment(replicas=0)))) == lost
    assert introduced(deployment(replicas=0)) == [("subset-scaled-to-zero", 0.1)]


def test_so_do_those_of_a_workload_that_is_deleted() -> None:
    old = get(Deployment, "cart-v2")
    assert not [p for p in after(changed(old, None)).clusters[0].all(Pod) if p in of("cart-v2")]
    assert introduced(changed(old, None)) == [("subset-empty-weighted", 0.1)]


def test_more_replicas_are_pods_that_nobody_has_seen() -> None:
    assert foreseen(WELL, [deployment(replicas=9)]) == [deployment(replicas=9)]


def test_of_fewer_replicas_the_ready_and_the_older_pods_stay() -> None:
    old: Deployment = get(Deployment, "cart-v2")
    first, *_ = of("cart-v2")
    spare = replace(first, metadata=replace(first.metadata, name="a-spare", creation_timestamp="2030-01-01T00:00:00Z"))
    failing = tuple(replace(c, status="False") for c in first.status.conditions or ())
    unready = replace(
        first,
        metadata=replace(first.metadata, name="a-unready", creation_timestamp="2001-01-01T00:00:00Z"),
        status=replace(first.status, conditions=failing),
    )
    assert not unready.ready
    scaled = replace(old, spec=replace(old.spec, replicas=3))
    wide = WELL.apply([changed(old, scaled), *(Change("east", Pod, "shop", p.name, p) for p in (spare, unready))])
    found = foreseen(wide, [changed(old, replace(old, spec=replace(old.spec, replicas=1)))])
    gone = {c.name for c in found if c.kind is Pod and c.new is None}
    assert {"a-spare", "a-unready"} <= gone | {p.name for p in of("cart-v2")[1:]}
    assert first.name not in gone


def test_pods_take_the_labels_of_their_template_and_services_follow() -> None:
    assert introduced(deployment(labels={"app": "cart", "version": "other"})) == [("subset-label-not-on-pods", 0.1)]
    lost = {p.status.pod_ip for p in of("cart-v2")}
    assert set(addresses(WELL)) - set(addresses(after(deployment(labels={"app": "elsewhere"})))) == lost


def test_a_service_has_the_pods_that_its_new_selector_selects() -> None:
    service: Service = get(Service, "cart")
    canary = {p.status.pod_ip for p in of("cart-v2")}
    narrow = replace(service, spec=replace(service.spec, selector={**(service.spec.selector or {}), **dict(of("cart-v2")[0].labels)}))
    assert set(addresses(after(changed(service, narrow)))) == canary
    wrong = replace(service, spec=replace(service.spec, selector={"app": "crat"}))
    assert addresses(after(changed(service, wrong))) == []
    mended = foreseen(after(changed(service, wrong)), [changed(service, service)])
    assert addresses(after(changed(service, wrong)).apply(mended)) == addresses(WELL)


def test_a_port_leads_where_its_target_is_in_the_pods() -> None:
    service: Service = get(Service, "cart")
    port = replace(service.spec.ports[0], target_port=9999)
    extra = ServicePort(port=81, name="http-extra", target_port="no-such-name")
    found = after(changed(service, replace(service, spec=replace(service.spec, ports=(port, extra)))))
    assert [[(p.name, p.port) for p in s.ports or ()] for s in found.slices(found.clusters[0], "shop", "cart")] == [[(port.name, 9999)]]


def test_a_new_service_has_the_endpoints_of_the_pods_that_are_there() -> None:
    service: Service = get(Service, "cart")
    again = replace(service, metadata=replace(service.metadata, name="again"))
    found = WELL.apply(foreseen(WELL, [Change("east", Service, "shop", "again", again)]))
    (made,) = found.slices(found.clusters[0], "shop", "again")
    assert sorted(a for e in made.endpoints or () for a in e.addresses or ()) == addresses(WELL)


def test_what_a_change_holds_itself_is_believed() -> None:
    service: Service = get(Service, "cart")
    (first, *_) = WELL.slices(EAST, "shop", "cart")
    given = [changed(service, replace(service, spec=replace(service.spec, selector={"app": "x"}))), changed(first, first)]
    assert foreseen(WELL, given) == given


def test_endpoints_that_people_wrote_are_left_alone() -> None:
    (first, *_) = WELL.slices(EAST, "shop", "cart")
    mine = replace(first, metadata=replace(first.metadata, labels={**first.labels, "endpointslice.kubernetes.io/managed-by": "me"}))
    found = WELL.apply([changed(first, mine)])
    assert [c for c in foreseen(found, [deployment(replicas=0)]) if c.kind is EndpointSlice and c.name == mine.name] == []


@pytest.mark.parametrize("kind", [Pod, Service, EndpointSlice, VirtualService])
def test_a_namespace_takes_everything_with_it(kind: type[Resource]) -> None:
    space = EAST.get(Namespace, "", "shop")
    assert space is not None
    assert [o for o in after(changed(space, None)).clusters[0].all(kind) if o.namespace == "shop"] == []


def test_a_service_takes_its_endpoints_with_it() -> None:
    found = after(changed(get(Service, "cart"), None))
    assert found.slices(found.clusters[0], "shop", "cart") == ()


def test_what_is_wrong_without_the_change_is_not_mended_by_it() -> None:
    """A slice that lost its ports, or a pod that no slice knows: what did not happen until now does not happen because of something else."""
    (first, *_) = WELL.slices(EAST, "shop", "cart")
    ill = WELL.apply([changed(first, replace(first, ports=(), endpoints=(first.endpoints or ())[:1]))])
    service: Service = get(Service, "cart")
    labelled = replace(service, metadata=replace(service.metadata, labels={"team": "a"}))
    assert foreseen(ill, [changed(service, labelled)]) == [changed(service, labelled)]
