"""What changed last on a host's way: told by the objects themselves, the newest first, and the change that may be why calls fail is marked."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from bot import manifests
from bot.informers import Codec
from checks import diagnosis, resources
from checks.changed import Changed, at, changed
from checks.mesh import Cluster, Mesh
from checks.resources import KIND_OF, Deployment, Pod, VirtualService

Json = dict[str, Any]
RECORDED = Path(__file__).parents[1] / "bot" / "demo" / "recorded" / "east"
HOST = "destination.mynamespace"
BROKE = at("2026-11-28T14:02:00Z")


@cache
def recorded() -> list[Json]:
    files = (yaml.load(f.read_text(), yaml.CSafeLoader) for f in sorted(RECORDED.glob("*.yaml")))
    return [i for found in files for i in found["items"]]


def written(manager: str, time: str, *, subresource: str = "", operation: str = "Update") -> Json:
    entry = {"manager": manager, "operation": operation, "time": time, "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:x": {}}}}
    return entry | ({"subresource": subresource} if subresource else {})


def told(writes: dict[str, list[Json]], since: float | None = BROKE, host: str = HOST, more: list[Json] | None = None) -> list[Changed]:
    """What changed on the host's way after some writes, by `Kind name`."""
    items = copy.deepcopy(recorded()) + (more or [])
    for item in items:
        item["metadata"]["managedFields"] = writes.get(f"{item['kind']} {item['metadata']['name']}", [])
    objects = resources.objects(r for i in items for r in resources.parse(i))
    meshes = Mesh.of([Cluster("east", objects=Cluster.index(objects))], BROKE)
    return list(changed(diagnosis.why(host, meshes), meshes, since))


def test_the_newest_write_of_each_object_on_the_way_comes_first_with_who_and_what() -> None:
    found = told(
        {
            "VirtualService destination": [
                written("istioctl", "2026-11-20T08:00:00Z"),
                written("kubectl-edit", "2026-11-28T14:01:30Z"),
                written("pilot-discovery", "2026-11-28T14:01:40Z", subresource="status"),
            ],
            "Deployment destination-v2": [written("kubectl", "2026-11-28T13:00:00Z", subresource="scale")],
            "DestinationRule destination": [written("argocd-controller", "2026-11-28T12:00:00Z", operation="Apply")],
        }
    )
    assert [(c.resource, c.by) for c in found[:3]] == [
        ("VirtualService mynamespace/destination", "kubectl-edit"),
        ("Deployment mynamespace/destination-v2", "kubectl"),
        ("DestinationRule mynamespace/destination", "argocd-controller"),
    ]
    assert [c.at for c in found] == sorted((c.at for c in found), reverse=True)
    assert found[1].what == "was scaled to 2"
    assert found[0].at == at("2026-11-28T14:01:30Z"), "a write of a status is no change"
    assert {"Service mynamespace/destination", "Namespace mynamespace", "Deployment istio-system/istiod"} <= {c.resource for c in found}
    assert not [c for c in found if c.resource.startswith(("Pod ", "EndpointSlice ", "Node "))]


@pytest.mark.parametrize(
    ("writes", "suspicious"),
    [
        pytest.param({"VirtualService destination": "13:55", "DestinationRule destination": "14:00"}, "VirtualService", id="a finding names it"),
        pytest.param({"VirtualService destination": "13:55", "DestinationRule destination": "14:02"}, "DestinationRule", id="at that very time"),
        pytest.param({"Service destination": "14:01", "VirtualService destination": "09:00"}, "Service", id="just before"),
        pytest.param({"Service destination": "14:20", "VirtualService destination": "09:00"}, "VirtualService", id="not what came after"),
        pytest.param({"VirtualService destination": "14:20"}, None, id="nor where a finding stands, when that came after"),
    ],
)  # fmt: skip
def test_one_change_at_most_is_marked(writes: dict[str, str], suspicious: str | None) -> None:
    found = told({ref: [written("kubectl-edit", f"2026-11-28T{when}:00Z")] for ref, when in writes.items()})
    assert [c.resource.partition(" ")[0] for c in found if c.suspicious] == ([suspicious] if suspicious else [])


def test_nothing_is_marked_where_nothing_fails() -> None:
    found = told({"Service istiod": [written("helm", "2026-11-28T14:01:00Z")]}, None, "istiod.istio-system")
    assert found[0].resource == "Service istio-system/istiod"
    assert not [c for c in found if c.suspicious]


def test_a_rollout_is_told_with_its_revision_whoever_wrote_the_deployment_since() -> None:
    second = next(copy.deepcopy(i) for i in recorded() if i["kind"] == "ReplicaSet" and i["metadata"]["name"].startswith("destination-v2"))
    second["metadata"]["name"] = "destination-v2-77d9c4f5b8"
    second["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "2"
    second["metadata"]["creationTimestamp"] = "2026-11-28T14:00:03Z"
    apart = told({"Deployment destination-v2": [written("kubectl", "2026-11-28T14:01:00Z", subresource="scale")]}, more=[second])
    assert [c.what for c in apart if c.resource.endswith("/destination-v2")][:2] == [
        "was scaled to 2",
        "began revision 2, ReplicaSet mynamespace/destination-v2-77d9c4f5b8",
    ]
    together = told({"Deployment destination-v2": [written("helm", "2026-11-28T14:00:02Z")]}, more=[second])
    assert [(c.by, c.what) for c in together if c.resource.endswith("/destination-v2")] == [("helm", "was changed, which began revision 2")]


def test_only_the_newest_write_is_kept_none_of_pods_and_a_recording_says_it_again(tmp_path: Path) -> None:
    entry = written("kubectl-edit", "2026-11-28T14:01:30Z")
    body: Json = {
        "metadata": {"name": "a", "namespace": "shop", "generation": 7, "managedFields": [written("helm", "2026-01-01T00:00:00Z"), entry]}
    }
    pod, vs = (Codec(KIND_OF[kind]).page(msgspec.json.encode({"items": [body]}))[0][0] for kind in (Pod, VirtualService))
    assert isinstance(pod, Pod)
    assert isinstance(vs, VirtualService)
    resources.share(vs)
    assert (pod.metadata.managed_fields, pod.metadata.generation) == ((), 0)
    assert [w.manager for w in vs.metadata.managed_fields] == ["kubectl-edit"]
    deployment = resources.decode(KIND_OF[Deployment], msgspec.json.encode(body))
    resources.share(deployment)
    cluster = Cluster("east", objects=Cluster.index([vs, deployment]))
    manifests.write(cluster, str(tmp_path / "east.yaml"))
    again = manifests.read(str(tmp_path / "east.yaml"), "east", mesh="", read_at=0.0)
    assert again.objects == cluster.objects
