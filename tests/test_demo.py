"""The demo: its recorded clusters, and what its buttons do to them."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import yaml

from bot import manifests
from bot.demo.runner import RECORDED, East
from checks.resources import ConfigMap, Deployment, DestinationRule, EndpointSlice, Pod, Service, ServiceEntry, VirtualService

if TYPE_CHECKING:
    from pathlib import Path

    from checks.mesh import Cluster


def recorded(name: str) -> Cluster:
    return manifests.read(str(RECORDED / name), name, mesh=name, read_at=1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(RECORDED / "east", tmp_path / "east")
    return tmp_path / "east"


def usable(folder: Path) -> set[str]:
    """The versions of destination that have endpoints."""
    east = manifests.read(str(folder), "east", read_at=1.0)
    assert not east.malformed
    pods = {p.name: p.labels["version"] for p in east.all(Pod) if "version" in p.labels}
    slices = [s for s in east.all(EndpointSlice) if s.service == "destination"]
    return {pods[e.target_ref.name] for s in slices for e in s.endpoints or () if e.target_ref}


@pytest.mark.parametrize("name", ["east", "west"])
def test_a_recorded_cluster_is_whole_and_has_its_control_plane(name: str):
    cluster = recorded(name)
    assert not cluster.malformed
    assert not cluster.unreadable
    assert [c.namespace for c in cluster.all(ConfigMap)] == ["istio-system"]
    (istiod,) = (p for p in cluster.all(Pod) if p.labels.get("app") == "istiod")
    assert {"CLUSTER_ID": name}.items() <= {e.name: e.value for c in istiod.spec.containers for e in c.env or ()}.items()


@pytest.mark.parametrize("name", ["east", "west"])
def test_every_pod_of_a_recorded_cluster_stands_in_the_slice_of_its_service(name: str):
    cluster = recorded(name)
    for service in cluster.all(Service):
        slices = [s for s in cluster.all(EndpointSlice) if (s.namespace, s.service) == (service.namespace, service.name)]
        named = {e.target_ref.name for s in slices for e in s.endpoints or () if e.target_ref}
        selected = {p.name for p in cluster.all(Pod) if (service.spec.selector or {}).items() <= p.labels.items()}
        assert named == selected != set(), service.ref
        addresses = {a for s in slices for e in s.endpoints or () for a in e.addresses or ()}
        assert addresses == {p.status.pod_ip for p in cluster.all(Pod) if p.name in named}


@pytest.mark.parametrize("file", sorted(RECORDED.rglob("*.yaml")), ids=lambda p: p.name)
def test_a_recorded_file_is_what_kubectl_prints(file: Path):
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert (document["apiVersion"], document["kind"]) == ("v1", "List")
    for item in document["items"]:
        assert {"name", "uid", "resourceVersion", "creationTimestamp"} <= item["metadata"].keys()


def test_east_is_the_first_incident_of_the_article():
    east = recorded("east")
    (rules,) = east.all(VirtualService)
    assert [(d.destination.subset, d.weight) for d in rules.spec.http[0].route] == [("v1", 95), ("v2", 5)]
    (rule,) = east.all(DestinationRule)
    assert [(s.name, s.labels) for s in rule.spec.subsets] == [("v1", {"version": "v1"}), ("v2", {"version": "v2"})]
    assert {d.name for d in east.all(Deployment)} >= {"destination-v2", "service-source-v1"}
    assert not any(d.name == "destination-v1" for d in east.all(Deployment))


def test_west_is_the_second_incident_of_the_article():
    entries = sorted(recorded("west").all(ServiceEntry), key=lambda e: e.created)
    hosts = [h for e in entries for h in e.spec.hosts]
    doubled = [e for e in entries if hosts.count(e.spec.hosts[0]) > 1]
    assert [(e.name, e.spec.resolution, [p.number for p in e.spec.ports]) for e in doubled] == [
        ("partner-pl", "STATIC", [443]),
        ("partner-pl-new", "DNS", [443, 8443]),
    ]
    assert len(set(hosts)) == 5


async def test_the_buttons_deploy_and_remove_v1(folder: Path):
    east = East(folder)
    assert usable(folder) == {"v2"}
    await east.deploy_v1()
    await east.deploy_v1()
    assert usable(folder) == {"v1", "v2"}
    await east.remove_v1()
    await east.remove_v1()
    assert usable(folder) == {"v2"}
    assert not list(folder.glob(".*"))


async def test_what_a_click_deploys_is_as_old_as_the_click(folder: Path):
    before = datetime.now(UTC).replace(microsecond=0)
    await East(folder).deploy_v1()
    made = [d for d in manifests.read(str(folder), "east", read_at=1.0).all(Deployment) if d.name == "destination-v1"]
    assert [datetime.fromisoformat(d.created) >= before for d in made] == [True]


async def test_the_clock_turns_until_a_person_presses_a_button(folder: Path):
    east = East(folder)
    clock = asyncio.create_task(east.turn(0.02))
    seen = set()
    async with asyncio.timeout(5):
        while len(seen) < 2:
            seen.add((folder / "destination-v1.yaml").exists())
            await asyncio.sleep(0.005)
        await east.remove_v1()
        await clock
    await asyncio.sleep(0.05)
    assert not (folder / "destination-v1.yaml").exists()


async def test_without_a_clock_nothing_turns(folder: Path):
    async with asyncio.timeout(1):
        await East(folder).turn(0)
    assert usable(folder) == {"v2"}
