"""What a real istiod pushed for the generated meshes of oracle/, and what the resolver says; every check over each of them.

The resolver agrees with all of it, and each destination that fails has a named cause: there is no list of exceptions.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
from msgspec.structs import replace as struct_replace

from checks import diagnosis, routes
from checks.case import Branch, Case
from checks.finding import Severity
from checks.mesh import Change, Cluster, Mesh
from checks.resources import APIGRPCRoute, objects, parse
from checks.viewpoints import callers, classes
from tests.oracle.compare import differences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.answers import Route, Viewpoint
    from checks.istiod import Proxy

Json = dict[str, Any]
ORACLE = Path(__file__).parent / "oracle"


class Recorded(NamedTuple):
    """One mesh of the archive: as the resolver reads it, and the viewpoints as istiod saw them."""

    name: str
    mesh: Mesh
    views: list[Json]


def recorded(archive: str = "meshes.tar.gz") -> Iterator[Recorded]:
    found: dict[str, dict[str, bytes]] = {}
    with tarfile.open(ORACLE / archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content is not None:
                mesh, file = Path(member.name).parts[-2:]
                found.setdefault(mesh, {})[file.removesuffix(".json")] = content.read()
    for name, files in sorted(found.items()):
        truth = msgspec.json.decode(files.pop("istiod"))
        clusters = [Cluster(c, objects=Cluster.index(objects(parse(data)))) for c, data in sorted(files.items())]
        yield Recorded(name, Mesh("", clusters, 0), truth["views"])


@pytest.fixture(scope="module")
def meshes() -> list[Recorded]:
    return list(recorded())


def compared(meshes: list[Recorded]) -> tuple[int, dict[str, list[str]]]:
    """How many views were compared, and the differences of each that has some."""
    differ: dict[str, list[str]] = {}
    views = 0
    for name, mesh, truth in meshes:
        for view in truth:
            views += 1
            found = msgspec.to_builtins(routes.for_pod(mesh, view["cluster"], view["as"]))
            if lines := differences(view["routes"], found):
                differ[f"{name} {view['cluster']}:{view['as']}"] = lines
    return views, differ


def test_the_resolver_says_what_istiod_pushed(meshes: list[Recorded]) -> None:
    assert compared(meshes) == (1755, {})
    assert len(meshes) == 598


def test_the_resolver_says_what_istiod_pushed_where_gateways_share_ports_hosts_and_addresses() -> None:
    assert compared(list(recorded("gateways.tar.gz"))) == (129, {})


def test_a_kind_without_a_word_of_istiod_is_not_read_and_one_with_it_is(meshes: list[Recorded]) -> None:
    heard = msgspec.convert({"status": {"parents": [{"controllerName": "istio.io/gateway-controller"}]}}, APIGRPCRoute).status
    read = 0
    for _, mesh, _ in meshes:
        for c in mesh.clusters:
            kept = list(c.all(APIGRPCRoute))
            if not kept:
                continue
            assert mesh.istiod(c.name).api.unread
            assert not [r for r in mesh.istiod(c.name).rulesets for rule in r.http if rule.leaf.startswith("GRPCRoute")]
            changes = [Change(c.name, APIGRPCRoute, r.namespace, r.name, struct_replace(r, status=heard)) for r in kept]
            after = mesh.apply(changes).istiod(c.name)
            assert not after.api.unread
            read += any(rule.leaf.startswith("GRPCRoute") for r in after.rulesets for rule in r.http)
    assert read > 10


def test_callers_of_one_class_hold_the_same(meshes: list[Recorded]) -> None:
    grouped = 0
    for name, mesh, _ in meshes:
        proxies = {c.viewpoint: c.proxy for c in callers(mesh)}
        for host in diagnosis.hosts(mesh):
            for group in chain(*classes(mesh, host)):
                first, *rest = group.viewpoints
                for other in rest:
                    grouped += 1
                    assert held(mesh, proxies[other], host, first) == held(mesh, proxies[first], host, first), (name, host, other)
    assert grouped > 1000


def held(mesh: Mesh, proxy: Proxy, host: str, viewpoint: Viewpoint) -> list[Route]:
    """What a proxy holds for a host, said as if another were asked."""
    return [routes.answer(viewpoint, s) for s in routes.steps(routes.upstreams(mesh, proxy), [host])]


def likely(branch: Branch) -> str:
    """Why a failing destination has no named cause yet, as far as its Envoy cluster tells."""
    u = branch.upstream
    if not u.host:
        return "an invalid backend of a Gateway API route"
    if u.service is None:
        return "a host that these callers do not see"
    port = u.service.port(u.port)
    if port is None:
        return "a port that the host does not have"
    if port.protocol == "UDP":
        return "a UDP port"
    if u.service.resolution == "alias":
        return "an ExternalName without a target"
    if not u.defined:
        return "a subset of a host that cannot have one" if u.subset else "a DNS name without endpoints"
    if u.dropped:
        return f"endpoints that are filtered out ({'kubernetes' if u.service.kubernetes else 'ServiceEntry'})"
    if not u.service.kubernetes:
        return "a ServiceEntry without endpoints"
    everyone = branch.view.ups.mesh.endpoints(branch.view.ups.istiod, u.service.hostname, u.service.namespace)
    if not everyone:
        return "a Service without any endpoint"
    return "endpoints, none under this port's name" if not u.subset else "endpoints, none for this port and subset"


def test_every_check_looks_at_every_mesh_and_an_error_always_has_a_failing_share(
    meshes: list[Recorded], capsys: pytest.CaptureFixture[str]
) -> None:
    unnamed: Counter[str] = Counter()
    rules: set[tuple[str, str, str, str]] = set()
    for name, mesh, _ in meshes:
        swept = diagnosis.sweep(mesh)
        assert [s for s in swept.skipped if s.check not in diagnosis.BY_PERMISSION] == [], name
        for f in swept.findings:
            assert (f.severity is Severity.ERROR) == (f.failing_share > 0), (name, f)
            assert 0 <= f.failing_share <= 1, (name, f)
        for host in diagnosis.hosts(mesh):
            case = Case.of(host, mesh)
            for b in case.failing():
                key = (name, b.resource, b.path, b.upstream.name)
                if not case.why(b) and key not in rules:
                    rules.add(key)
                    unnamed[likely(b)] += 1
    with capsys.disabled():
        print(f"\nfailing destinations without a named cause: {unnamed.total()}")  # noqa: T201 - the figure is what this test is read for
        for reason, count in unnamed.most_common():
            print(f"{count:6} {reason}")  # noqa: T201 - as above
    assert not unnamed
