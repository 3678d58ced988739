"""Manifests in files: what people and tools write is read as a cluster, whatever else is in it; what is recorded is read back equal."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bot import manifests
from bot.manifests import BadSource
from checks import diagnosis
from checks.mesh import Cluster, Mesh
from checks.resources import (
    ConfigMap,
    EndpointSlice,
    Malformed,
    Namespace,
    PeerAuthentication,
    Pod,
    Resource,
    Secret,
    Service,
    VirtualService,
    parse,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop, creationTimestamp: 2026-09-01T10:00:00Z}
spec: {selector: {app: cart}, ports: [{name: http, port: 80, targetPort: web}]}
"""
VIRTUAL_SERVICE = """\
# what the team wrote
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata:
  name: cart
  namespace: shop
spec:
  hosts: [cart]
  http:
  - route:
    - destination: {host: cart, subset: v1}
      weight: 95
"""
LIST = """\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata:
    name: shop
- apiVersion: v1
  kind: Pod
  metadata:
    name: cart-1
    namespace: shop
"""


def read(path: Path | str, name: str = "east") -> Cluster:
    return manifests.read(str(path), name, read_at=7.0)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def names(cluster: Cluster) -> set[str]:
    return {o.ref for namespaces in cluster.objects.values() for named in namespaces.values() for o in named.values()}


def sentence(path: Path | str) -> str:
    with pytest.raises(BadSource) as bad:
        read(path)
    assert "\n" not in str(bad.value)
    return str(bad.value)


# --- forms -----------------------------------------------------------------------------------------------------------------


def test_a_stream_of_yaml_documents_is_read_and_each_object_knows_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "east.yaml", f"{SERVICE}---\n{VIRTUAL_SERVICE}---\n---\n{LIST}")
    cluster = manifests.read(str(path), "east", mesh="prod", read_at=7.0)
    assert names(cluster) == {"Service shop/cart", "VirtualService shop/cart", "Namespace shop", "Pod shop/cart-1"}
    assert (cluster.name, cluster.mesh, cluster.read_at, cluster.synced) == ("east", "prod", 7.0, True)
    assert cluster.origins == {
        "Service shop/cart": (str(path), 1),
        "VirtualService shop/cart": (str(path), 7),
        "Namespace shop": (str(path), 23),
        "Pod shop/cart-1": (str(path), 27),
    }
    text = path.read_text().splitlines()
    assert all(text[line - 1].lstrip("- ").startswith("apiVersion") for _, line in cluster.origins.values())


def test_json_is_read_as_one_object_or_a_list_whose_items_know_their_lines(tmp_path: Path) -> None:
    items = [yaml.safe_load(VIRTUAL_SERVICE), *yaml.safe_load(LIST)["items"]]
    path = write(tmp_path / "list.json", json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2))
    cluster = read(path)
    assert names(cluster) == {"VirtualService shop/cart", "Namespace shop", "Pod shop/cart-1"}
    lines = path.read_text().splitlines()
    for _, line in cluster.origins.values():
        assert lines[line - 1].strip() == "{"
        assert "apiVersion" in lines[line]
    assert names(read(write(tmp_path / "one.json", json.dumps(items[0])))) == {"VirtualService shop/cart"}


def test_what_two_commands_left_in_one_file_is_both(tmp_path: Path) -> None:
    several = write(tmp_path / "a.yaml", f"{LIST.rstrip()}\n{SERVICE}{SERVICE.replace('name: cart', 'name: basket')}")
    cluster = read(several)
    assert names(cluster) == names(read(write(tmp_path / "list.yaml", LIST))) | {"Service shop/cart", "Service shop/basket"}
    lines = several.read_text().splitlines()
    assert cluster.origins["Service shop/basket"] == (str(several), len(lines) - len(SERVICE.splitlines()) + 1)


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_items_of_a_typed_list_are_what_the_list_says(tmp_path: Path, form: str) -> None:
    """As the API server writes them; apimachinery's UnstructuredList fills in the same (unstructured/helpers.go, decodeToList)."""
    service = yaml.safe_load(SERVICE.replace("2026-09-01T10:00:00Z", "'2026-09-01T10:00:00Z'"))
    bare = {k: v for k, v in service.items() if k not in {"apiVersion", "kind"}}
    said = {**service, "metadata": {**service["metadata"], "name": "basket"}}
    typed = {"apiVersion": "v1", "kind": "ServiceList", "items": [bare, said, {}]}
    untyped = {"apiVersion": "v1", "kind": "List", "items": [bare]}
    dumped = [json.dumps(d, indent=1) if form == "json" else yaml.safe_dump(d) for d in (typed, untyped)]
    cluster = read(write(tmp_path / "typed", dumped[0]))
    assert names(cluster) == {"Service shop/cart", "Service shop/basket"}
    assert cluster.get(Service, "shop", "cart") == read(write(tmp_path / "one.yaml", SERVICE)).get(Service, "shop", "cart")
    assert "no document in it has apiVersion and kind" in sentence(write(tmp_path / "untyped", dumped[1]))


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_number_that_is_none_to_kubernetes_makes_its_object_malformed_and_stops_nothing(tmp_path: Path, form: str) -> None:
    rule = yaml.safe_load(VIRTUAL_SERVICE)
    rule["spec"]["http"][0]["route"][0]["weight"] = 10**30
    path = write(tmp_path / "big", f"{SERVICE}---\n{json.dumps(rule) if form == 'json' else yaml.safe_dump(rule)}\n")
    cluster = read(path)
    assert [m.ref for m in cluster.malformed] == ["VirtualService shop/cart"]
    (mesh,) = Mesh.of([cluster], 7.0)
    assert diagnosis.sweep(mesh).hosts == 1


def test_json_after_json_and_json_between_dashes_are_read(tmp_path: Path) -> None:
    one, two = json.dumps(yaml.safe_load(VIRTUAL_SERVICE)), json.dumps(yaml.safe_load(LIST), indent=1)
    both = read(write(tmp_path / "both.json", f"{one}\n{two}\n"))
    assert names(both) == {"VirtualService shop/cart", "Namespace shop", "Pod shop/cart-1"}
    assert both.origins["VirtualService shop/cart"][1] == 1
    assert both.origins["Namespace shop"][1] == 6
    assert names(read(write(tmp_path / "dashes.yaml", f"{one}\n---\n{two}\n"))) == names(both)


def test_yaml_means_what_kubernetes_means_by_it(tmp_path: Path) -> None:
    text = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: default
  namespace: shop
  creationTimestamp: 2026-09-01T10:00:00Z
  labels: {slot: 1:20, "on": "yes"}
spec:
  portLevelMtls:
    8080: {mode: DISABLE}
"""
    cluster = read(write(tmp_path / "pa.yaml", text))
    policy = cluster.objects[PeerAuthentication]["shop"]["default"]
    assert isinstance(policy, PeerAuthentication)
    assert policy.created == "2026-09-01T10:00:00Z"
    assert policy.labels == {"slot": "1:20", "on": "yes"}
    assert policy.spec.port_level_mtls is not None
    assert policy.spec.port_level_mtls["8080"].mode == "DISABLE"
    assert cluster.malformed == ()


def test_null_is_what_was_left_out(tmp_path: Path) -> None:
    said = (
        SERVICE.replace("selector", "type: null, selector")
        .replace("port: 80", "port: 80, protocol: null")
        .replace("2026-09-01T10:00:00Z", "null")
    )
    cluster = read(write(tmp_path / "a.yaml", said))
    assert cluster.malformed == ()
    service = cluster.objects[Service]["shop"]["cart"]
    assert isinstance(service, Service)
    assert (service.spec.ports[0].protocol, service.spec.type, service.created) == ("TCP", "ClusterIP", "")


def test_a_label_that_the_api_server_would_refuse_is_malformed_here_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", f"{SERVICE.replace('app: cart', 'app: 1e3')}---\n{VIRTUAL_SERVICE}")
    cluster = read(path)
    assert names(cluster) == {"VirtualService shop/cart"}
    (bad,) = cluster.malformed
    assert bad.ref == "Service shop/cart"
    assert "Expected `str`, got `float`" in bad.reason
    assert cluster.origins["Service shop/cart"] == (str(path), 1)


def test_an_object_without_namespace_is_in_default_as_kubectl_applies_it(tmp_path: Path) -> None:
    cluster = read(write(tmp_path / "a.yaml", SERVICE.replace("namespace: shop, ", "")))
    assert names(cluster) == {"Service default/cart"}
    assert list(cluster.objects[Service]) == ["default"]


def test_anchors_and_merges_are_followed(tmp_path: Path) -> None:
    text = SERVICE.replace("spec: {", "base: &base {clusterIP: 10.0.0.9}\nspec: {<<: *base, ")
    service = read(write(tmp_path / "a.yaml", text)).objects[Service]["shop"]["cart"]
    assert isinstance(service, Service)
    assert service.spec.cluster_ip == "10.0.0.9"


def test_only_istiods_own_config_maps_are_kept(tmp_path: Path) -> None:
    text = "".join(
        f"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: istio-system}}\ndata: {data}\n"
        for name, data in [
            ("istio", "{mesh: 'rootNamespace: istio-system'}"),
            ("istio-canary", "{mesh: ''}"),
            ("istio-ca-root-cert", "{root-cert.pem: x}"),
            ("application", "{mesh: x, password: hush}"),
        ]
    )
    assert set(read(write(tmp_path / "a.yaml", text)).objects[ConfigMap]["istio-system"]) == {"istio", "istio-canary"}


def test_a_directory_is_read_and_what_is_not_ours_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "a/service.yaml", SERVICE)
    write(tmp_path / "b/c/virtualservice.yml", VIRTUAL_SERVICE)
    write(tmp_path / "README.md", "kind: of a readme")
    write(tmp_path / "values.yaml", "replicas: 3\nimage: {tag: v1}\n")
    write(tmp_path / "kustomization.yaml", "resources: [a]\nkind: Kustomization\napiVersion: kustomize.config.k8s.io/v1beta1\n")
    write(tmp_path / ".git/config.yaml", LIST)
    write(tmp_path / "proxy.log", "{kind: }")
    cluster = read(tmp_path)
    assert names(cluster) == {"Service shop/cart", "VirtualService shop/cart"}
    assert cluster.origins["VirtualService shop/cart"] == (str(tmp_path / "b/c/virtualservice.yml"), 2)
    assert cluster.malformed == ()


def test_a_mounted_config_map_is_read_once_through_its_links(tmp_path: Path) -> None:
    write(tmp_path / "..2026_09_01/east.yaml", SERVICE)
    (tmp_path / "..data").symlink_to("..2026_09_01")
    (tmp_path / "east.yaml").symlink_to("..data/east.yaml")
    assert read(tmp_path).origins == {"Service shop/cart": (str(tmp_path / "east.yaml"), 1)}


def test_a_broken_file_of_a_directory_is_malformed_and_stops_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", SERVICE)
    write(tmp_path / "b.yaml", f"{VIRTUAL_SERVICE}---\napiVersion: v1\nkind: {{{{ .Values.kind }}}}\nmetadata: {{}}\n")
    write(tmp_path / "c.json", '{"apiVersion": "v1",\n "kind": "Service",\n "metadata": }')
    cluster = read(tmp_path)
    assert names(cluster) == {"Service shop/cart", "VirtualService shop/cart"}
    one, other = cluster.malformed
    assert one.ref == str(tmp_path / "b.yaml")
    assert one.reason == "15: it is not YAML: a key must be text"
    assert other == Malformed(str(tmp_path / "c.json"), "3: it is not JSON: JSON is malformed: invalid character (byte 54)")


def test_a_file_of_a_directory_that_says_nothing_of_manifests_is_malformed_only_when_it_is_broken(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", SERVICE)
    write(tmp_path / "b.yaml", "{ this is no manifest")
    write(tmp_path / "c.json", '{"data": [')
    write(tmp_path / "values.yaml", "replicas: 3\nimage: {tag: v1}\n")
    write(tmp_path / "big.yaml", "{ " + "x" * (1 << 17))
    cluster = read(tmp_path)
    assert names(cluster) == {"Service shop/cart"}
    assert [m.ref for m in cluster.malformed] == [str(tmp_path / "b.yaml"), str(tmp_path / "c.json")]


# --- archives --------------------------------------------------------------------------------------------------------------


def tarball(path: Path, members: Mapping[str, str | bytes], *extra: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info in extra:
            archive.addfile(info)
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


ENDPOINTS = """\
- apiVersion: v1
  kind: Endpoints
  metadata: {name: cart, namespace: shop, labels: {app: cart}}
  subsets:
  - addresses:
    - {ip: 10.1.0.7, nodeName: n1, targetRef: {kind: Pod, name: cart-1, namespace: shop}}
    notReadyAddresses:
    - {ip: 10.1.0.8, targetRef: {kind: Pod, name: cart-2, namespace: shop}}
    ports: [{name: http, port: 8080, protocol: TCP}]
"""


def test_pods_that_were_left_out_are_unread_and_their_endpoints_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "east.yaml"
    path.write_text(f"kind: List\napiVersion: v1\nitems:\n{ENDPOINTS}- {'  '.join(SERVICE.splitlines(True))}")
    cluster = read(path)
    assert cluster.unreadable == {"pods": "there is no Pod in these manifests, and endpoints name some"}
    found = diagnosis.why("cart.shop", Mesh.of([cluster], 0.0))
    assert [(e.address, e.state) for e in found.routes[0].destinations[0].endpoints] == [
        ("10.1.0.7:8080", "healthy"),
        ("10.1.0.8:8080", "unhealthy"),
    ]
    assert (found.findings, str(found.verdict)) == ((), "unknown")


def test_a_bug_report_is_read_although_its_files_have_no_suffix_and_it_has_no_slices(tmp_path: Path) -> None:
    report = "bug-report/cluster"
    path = tarball(
        tmp_path / "bug-report.tar.gz",
        {
            f"{report}/k8s-resources": LIST
            + ENDPOINTS
            + "".join(f"- {line}" if not i else f"  {line}" for i, line in enumerate(SERVICE.splitlines(True))),
            f"{report}/crs": f"apiVersion: v1\nkind: List\nitems:\n- {'  '.join(VIRTUAL_SERVICE.split(chr(10), 1)[1].splitlines(True))}",
            f"{report}/secrets": "NAMESPACE  NAME  TYPE\nshop  token  Opaque\n",
            f"{report}/events": "NAMESPACE LAST SEEN kind: x\n",
            "bug-report/proxies/shop/cart-1/config_dump": '{"configs": [{"kind": "no manifest"}]}',
            "bug-report/istio/istio-system/istiod-1/debug/configz": '[{"kind": "VirtualService", "apiVersion": "networking.istio.io/v1"}]',
            "bug-report/istio/istio-system/istiod-1/discovery.log": "{",
            "bug-report/versions": "The following Istio control plane revisions",
        },
    )
    cluster = read(path)
    assert cluster.malformed == ()
    assert {"VirtualService shop/cart", "Service shop/cart", "Pod shop/cart-1"} < names(cluster)
    (made,) = cluster.objects[EndpointSlice]["shop"].values()
    assert isinstance(made, EndpointSlice)
    assert made.service == "cart"
    assert made.ports is not None
    assert made.endpoints is not None
    assert (made.ports[0].name, made.ports[0].port) == ("http", 8080)
    assert [(e.addresses, e.conditions.ready) for e in made.endpoints] == [(("10.1.0.7",), True), (("10.1.0.8",), False)]
    assert made.endpoints[0].target_ref is not None
    assert made.endpoints[0].target_ref.name == "cart-1"
    assert cluster.origins["VirtualService shop/cart"] == (f"{path}/{report}/crs", 4)


def test_endpoints_add_nothing_where_the_slices_are_there(tmp_path: Path) -> None:
    slices = """\
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: cart-x7k2p, namespace: shop, labels: {kubernetes.io/service-name: cart}}
  addressType: IPv4
  endpoints: []
"""
    cluster = read(write(tmp_path / "a.yaml", LIST + ENDPOINTS + slices))
    assert set(cluster.objects[EndpointSlice]["shop"]) == {"cart-x7k2p"}


def test_endpoints_of_both_families_become_a_slice_of_each(tmp_path: Path) -> None:
    cluster = read(write(tmp_path / "a.yaml", LIST + ENDPOINTS.replace("ip: 10.1.0.8", "ip: 'fd00::8'")))
    made = cluster.objects[EndpointSlice]["shop"].values()
    assert {m.address_type for m in made if isinstance(m, EndpointSlice)} == {"IPv4", "IPv6"}


def test_a_must_gather_is_read(tmp_path: Path) -> None:
    root = "must-gather.local.1/quay-io-image-sha256"
    path = tarball(
        tmp_path / "must-gather.tgz",
        {
            f"./{root}/version": "4.17\n",
            f"./{root}/namespaces/shop/core/pods.yaml": LIST.replace("kind: List", "kind: PodList"),
            f"./{root}/namespaces/shop/pods/cart-1/cart-1.yaml": "---\n" + yaml.safe_dump(yaml.safe_load(LIST)["items"][1]),
            f"./{root}/namespaces/shop/networking.istio.io/virtualservices/cart.yaml": "---\n" + VIRTUAL_SERVICE,
            f"./{root}/namespaces/shop/pods/cart-1/config_dump_proxy.json": "command terminated with exit code 1",
            f"./{root}/event-filter.html": "<html>",
        },
    )
    cluster = read(path)
    assert names(cluster) == {"Namespace shop", "Pod shop/cart-1", "VirtualService shop/cart"}
    assert cluster.malformed == ()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_is_known_by_what_it_is(tmp_path: Path, mode: str) -> None:
    assert names(read(tarball(tmp_path / "some.data", {"a.yaml": SERVICE}, mode=mode))) == {"Service shop/cart"}


def test_a_zip_and_a_compressed_manifest_are_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("dir/", "")
        archive.writestr("dir/a.yaml", SERVICE)
    assert read(tmp_path / "a.zip").origins == {"Service shop/cart": (f"{tmp_path}/a.zip/dir/a.yaml", 1)}
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        assert names(read(write(tmp_path / "a.packed", pack(SERVICE.encode())))) == {"Service shop/cart"}
        half = write(tmp_path / "half.packed", pack(os.urandom(999))[:300])
        assert sentence(half) == f"{half} is a damaged archive: Compressed file ended before the end-of-stream marker was reached."
    broken = write(tmp_path / "broken.packed", bz2.compress(SERVICE.encode())[:-9] + b"123456789")
    assert sentence(broken) == f"{broken} is a damaged archive: Invalid data stream."


def test_stdin_is_a_file_or_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tarball(tmp_path / "a.tgz", {"a.yaml": SERVICE}).read_bytes()
    for data in (SERVICE.encode(), archive):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert names(read("-")) == {"Service shop/cart"}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert sentence("-") == "stdin holds no manifests: nothing that looks like YAML or JSON of Kubernetes objects."


@pytest.mark.parametrize("member", ["../../etc/evil.yaml", "/etc/evil.yaml", "a/../../evil.yaml", "..\\evil.yaml", "C:\\evil.yaml"])
def test_an_archive_that_leads_out_of_itself_is_refused(tmp_path: Path, member: str) -> None:
    path = tarball(tmp_path / "evil.tar.gz", {"a.yaml": SERVICE, member: SERVICE})
    assert sentence(path) == f"{path} is refused: its member {member!r} leads out of the archive."
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(member.replace("\\", "/")), SERVICE)
    assert "leads out of the archive" in sentence(tmp_path / "evil.zip")


@pytest.mark.parametrize("type_", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_an_archive_with_a_device_is_refused(tmp_path: Path, type_: bytes) -> None:
    device = tarfile.TarInfo("dev/zero.yaml")
    device.type = type_
    path = tarball(tmp_path / "evil.tar.gz", {"a.yaml": SERVICE}, device)
    assert sentence(path) == f"{path} is refused: its member 'dev/zero.yaml' is a device."


def test_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.yaml", LIST)
    link = tarfile.TarInfo("link.yaml")
    link.type, link.linkname = tarfile.SYMTYPE, str(secret)
    assert names(read(tarball(tmp_path / "a.tar", {"a.yaml": SERVICE}, link, mode="w"))) == {"Service shop/cart"}


def test_what_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MAX_FILE", 1 << 20)
    monkeypatch.setattr(manifests, "MAX_TOTAL", 3 << 20)
    big = b"# kind: x\n" + b" " * (2 << 20)
    assert sentence(write(tmp_path / "big.yaml", big)) == f"{tmp_path}/big.yaml is larger than 1 MiB."
    assert "larger than 1 MiB" in sentence(write(tmp_path / "big.yaml.gz", gzip.compress(big)))
    path = tarball(tmp_path / "big.tgz", {"a.log": big, "b.log": big, "a.yaml": SERVICE})
    assert sentence(path) == f"{path} is refused: it unpacks to more than 3 MiB."
    with zipfile.ZipFile(tmp_path / "big.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.log", big)
        archive.writestr("b.log", big)
    assert "unpacks to more than 3 MiB" in sentence(tmp_path / "big.zip")


# --- one clear sentence ----------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path: Path) -> None:
    gone = tmp_path / "gone.yaml"
    assert sentence(gone) == f"{gone} is not there."
    (tmp_path / "empty").mkdir()
    assert "holds no manifests" in sentence(tmp_path / "empty")
    shopping = write(tmp_path / "shopping.yaml", "- milk\n- bread\n")
    assert sentence(shopping) == f"{shopping} holds no Kubernetes manifests: no document in it has apiVersion and kind."
    crons = write(tmp_path / "crons.yaml", "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a}\n")
    assert sentence(crons) == f"{crons} holds manifests, but none of a kind that meshwhy reads (it has CronJob)."
    broken = write(tmp_path / "broken.yaml", f"{SERVICE}---\nkind: [\nmetadata: }}\n")
    assert sentence(broken).startswith(f"{broken}:7: it is not YAML: ")
    latin = write(tmp_path / "latin.yaml", SERVICE.encode() + b"# caf\xe9\n")
    assert sentence(latin) == f"{latin}:5: it is not text in UTF-8"
    tabs = write(tmp_path / "tabs.yaml", "a:\n\tb: 1\n")
    assert sentence(tabs).startswith(f"{tabs}:2: it is not YAML: ")
    bell = write(tmp_path / "bell.yaml", "a: \x07\n")
    assert "it is not YAML" in sentence(bell)
    damaged = write(tmp_path / "damaged.tar.gz", tarball(tmp_path / "a.tgz", {"a.yaml": SERVICE * 99}).read_bytes()[:150])
    assert sentence(damaged).startswith(f"{damaged} is a damaged archive: ")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.yaml", SERVICE)
    locked = bytearray((tmp_path / "a.zip").read_bytes())
    locked[6] |= 1
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    assert "is encrypted" in sentence(write(tmp_path / "locked.zip", bytes(locked)))


def test_a_file_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.yaml", SERVICE)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    assert sentence(path) == f"{path} cannot be read: Permission denied."


def test_what_of_a_directory_may_not_be_read_is_malformed_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.yaml", "locked.yaml", "locked.log", "locked/b.yaml", "c.yaml"):
        write(tmp_path / name, SERVICE)
    opened, listed = Path.open, os.scandir

    def refuse(path: str) -> None:  # root may read everything
        if "locked" in path.removeprefix(str(tmp_path)):
            raise PermissionError(13, "Permission denied", path)

    def open_(path: Path, *how: Any, **more: Any) -> Any:
        refuse(str(path))
        return opened(path, *how, **more)

    def scandir(path: str) -> Any:
        refuse(path)
        return listed(path)

    monkeypatch.setattr(Path, "open", open_)
    monkeypatch.setattr(os, "scandir", scandir)
    cluster = read(tmp_path)
    assert names(cluster) == {"Service shop/cart"}
    assert set(cluster.malformed) == {Malformed(str(tmp_path / name), "Permission denied") for name in ("locked.yaml", "locked")}
    assert sentence(tmp_path / "locked") == f"{tmp_path}/locked cannot be read: Permission denied."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"apiVersion": "v1", "kind": "Service"}]', "holds no Kubernetes manifests"),
        ('{"apiVersion": "v1", "kind": "List", "items": [null, 1, "x", [], {}]}', "holds no Kubernetes manifests"),
        ('{"kind": 7, "metadata": {', "it is not JSON: Input data was truncated"),
    ],
)
def test_json_that_holds_no_object_is_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    assert said in sentence(write(tmp_path / "odd.json", text))
    items = json.dumps([None, [], yaml.safe_load(SERVICE)], default=str)
    assert names(read(write(tmp_path / "even.json", f'{{"apiVersion": "v1", "kind": "List", "items": {items}}}'))) == {"Service shop/cart"}


@pytest.mark.parametrize(
    "text", ["[" * 30_000, "{a: " * 30_000, "- " * 30_000, "? " * 30_000, "[1, " * 30_000 + "]" * 30_000, '{"a":' * 30_000]
)
def test_nesting_without_end_is_a_sentence_and_not_a_crash(tmp_path: Path, text: str) -> None:
    said = sentence(write(tmp_path / "deep.yaml", f"{SERVICE}---\n{text}\n"))
    assert "nested deeper than 200 levels" in said
    sentence(write(tmp_path / "deep.json", text))


def test_aliases_that_unfold_without_end_are_refused(tmp_path: Path) -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    assert "aliases unfold to more than" in sentence(write(tmp_path / "laughs.yaml", f"{SERVICE}{laughs}"))
    assert "aliases unfold to more than" in sentence(write(tmp_path / "loop.yaml", f"{SERVICE}loop: &loop [*loop]\n"))


def test_half_a_manifest_is_named_and_not_lost(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.yaml", f"{SERVICE}---\napiVersion: v1\nmetadata: {{name: x}}\n---\nkind: Service\napiVersion: v1\nspec: {{}}\n"
    )
    cluster = read(path)
    assert cluster.malformed == (
        Malformed(f"{path}:6", "it is no manifest: apiVersion and kind must both be given, as text"),
        Malformed(f"{path}:9", "a Service without metadata.name"),
    )


# --- recordings ------------------------------------------------------------------------------------------------------------


def cluster_of(*found: Resource, **more: Any) -> Cluster:
    return Cluster("east", "prod", Cluster.index(found), read_at=7.0, **more)


def objects(text: str) -> list[Resource]:
    return [
        o
        for d in yaml.safe_load_all(text.replace("2026-09-01T10:00:00Z", "'2026-09-01T10:00:00Z'"))
        for o in parse(d)
        if isinstance(o, Resource)
    ]


@pytest.mark.parametrize("suffix", ["yaml", "json", "tar.gz", "tgz", "recorded"])
def test_what_is_recorded_is_read_back_equal(tmp_path: Path, suffix: str) -> None:
    first = cluster_of(
        *objects(f"{SERVICE}---\n{VIRTUAL_SERVICE}---\n{LIST}"),
        unreadable={"nodes": "403: nodes is forbidden"},
        malformed=(Malformed("Sidecar shop/default", "Expected `object`, got `str` - at `$.spec`"),),
    )
    path = tmp_path / f"east.{suffix}"
    manifests.write(first, str(path))
    again = manifests.read(str(path), "east", mesh="prod", read_at=7.0)
    assert again.objects == first.objects
    assert (again.unreadable, again.malformed, again.synced) == (first.unreadable, first.malformed, True)
    assert list(tmp_path.iterdir()) == [path]


def test_every_object_of_the_oracle_is_recorded_and_read_back_equal(tmp_path: Path) -> None:
    whole: list[Resource] = []
    with tarfile.open(Path(__file__).parent / "oracle/meshes.tar.gz") as archive:
        for i, member in enumerate(m for m in archive if m.name.endswith(("east.json", "west.json"))):
            if i % 20 == 0 and (data := archive.extractfile(member)) is not None:
                whole += [
                    o
                    for o in parse(data.read())
                    if isinstance(o, Resource) and not o.annotations and not isinstance(o, Pod) and not isinstance(o, ConfigMap)
                ]
    first = cluster_of(*whole)
    assert sum(len(named) for namespaces in first.objects.values() for named in namespaces.values()) > 300
    manifests.write(first, str(tmp_path / "a.yaml"))
    again = read(tmp_path / "a.yaml")
    assert again.objects == first.objects
    assert again.malformed == ()


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=4), st.text())
def test_any_text_is_recorded_and_read_back_equal(tmp_path_factory: pytest.TempPathFactory, labels: dict[str, str], text: str) -> None:
    (namespace,) = objects("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n")
    path = str(tmp_path_factory.mktemp("any") / "a.yaml")
    first = cluster_of(type(namespace)(metadata=type(namespace.metadata)(name="a", labels={**labels, "text": text})))
    manifests.write(first, path)
    assert manifests.read(path, "east", read_at=7.0).objects == first.objects


@pytest.mark.parametrize(
    "text", ["1e3", "64e5", "0x1f", "010", "1_000", "on", "Yes", "null", "~", "", "1:20", "2026-09-01", ".5", "1.", "+1", "=", "<<"]
)
def test_text_that_looks_like_something_else_stays_text(tmp_path: Path, text: str) -> None:
    first = cluster_of(Namespace(metadata=objects(LIST)[0].metadata.__class__(name="shop", labels={"v": text})))
    manifests.write(first, str(tmp_path / "a.yaml"))
    assert read(tmp_path / "a.yaml").objects == first.objects


def test_secrets_and_what_other_tools_left_are_not_recorded(tmp_path: Path) -> None:
    env = "env: [{name: PASSWORD, value: hush}], args: [--token=hush]"
    text = f"""\
apiVersion: v1
kind: Pod
metadata:
  name: cart-1
  namespace: shop
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: hush
    argocd.argoproj.io/tracking-id: hush
    example.com/istio.io: hush
    istio.io/rev: canary
    sidecar.istio.io/inject: "true"
    meshwhy.io/owner: "#shop"
spec:
  containers:
  - {{name: app, {env}}}
  - {{name: istio-proxy, env: [{{name: ISTIO_META_NETWORK, value: n1}}], args: [proxy, sidecar]}}
  initContainers:
  - {{name: migrate, {env}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: a, namespace: shop}}
data: {{password: aHVzaA==}}
"""
    first = read(write(tmp_path / "live.yaml", text))
    path = tmp_path / "recorded.yaml"
    manifests.write(first, str(path))
    recorded = path.read_text()
    assert "hush" not in recorded
    assert "aHVzaA==" not in recorded
    assert "Secret" not in recorded
    pod = read(path).objects[Pod]["shop"]["cart-1"]
    assert isinstance(pod, Pod)
    assert pod.annotations == {"istio.io/rev": "canary", "sidecar.istio.io/inject": "true", "meshwhy.io/owner": "#shop"}
    assert pod.spec.containers[1].env is not None
    assert (pod.spec.containers[1].env[0].value, pod.spec.containers[1].args) == ("n1", ("proxy", "sidecar"))
    manifests.write(read(path), str(tmp_path / "again.yaml"))
    assert (tmp_path / "again.yaml").read_text() == recorded


def test_a_recording_is_a_manifest_that_kubectl_would_take(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    manifests.write(cluster_of(*objects(VIRTUAL_SERVICE)), str(path))
    assert yaml.safe_load(path.read_text()) == {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"hosts": ["cart"], "http": [{"route": [{"destination": {"host": "cart", "subset": "v1"}, "weight": 95}]}]},
    }


def test_a_lost_cluster_that_was_recorded_is_not_healthy_when_read_back(tmp_path: Path) -> None:
    first = Cluster("east", unreadable={"*": "10.0.0.1:6443 cannot be reached: Connection refused"}, synced=False)
    manifests.write(first, str(tmp_path / "a.yaml"))
    again = read(tmp_path / "a.yaml")
    assert not again.synced
    assert again.unreadable == first.unreadable


def test_a_recording_that_cannot_be_written_is_one_sentence_and_leaves_the_old_one(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    cluster = cluster_of(*objects(VIRTUAL_SERVICE))
    with pytest.raises(BadSource, match=r"^.*/no/such/a\.yaml cannot be written: No such file or directory\.$"):
        manifests.write(cluster, str(tmp_path / "no/such/a.yaml"))
    (tmp_path / "dir.yaml").mkdir()
    with pytest.raises(BadSource, match=r"cannot be written: Is a directory"):
        manifests.write(cluster, str(tmp_path / "dir.yaml"))
    assert [p.name for p in tmp_path.iterdir()] == ["dir.yaml"]
    manifests.write(cluster, "-")
    assert b"kind: VirtualService" in capsysbinary.readouterr().out


def test_a_virtual_service_in_json_and_in_yaml_is_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", json.dumps(yaml.safe_load(VIRTUAL_SERVICE)))
    other = write(tmp_path / "a.yaml", VIRTUAL_SERVICE)
    assert read(path).objects[VirtualService] == read(other).objects[VirtualService]


def test_of_a_secret_nothing_is_kept_but_that_it_is_there(tmp_path: Path) -> None:
    text = """\
apiVersion: v1
kind: Secret
metadata:
  name: a
  namespace: shop
  annotations: {kubectl.kubernetes.io/last-applied-configuration: aHVzaA==}
type: kubernetes.io/tls
data: {tls.key: aHVzaA==}
"""
    (found,) = read(write(tmp_path / "live.yaml", text)).objects[Secret]["shop"].values()
    assert (found.name, found.type, dict(found.annotations)) == ("a", "kubernetes.io/tls", {})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be", "utf-16"])
def test_what_windows_writes_is_read(tmp_path: Path, encoding: str):
    """A byte order mark, line ends of two characters, and PowerShell's UTF-16."""
    text = "apiVersion: v1\r\nkind: Service\r\nmetadata: {name: ä, namespace: b}\r\n---\r\n# nothing\r\n---\r\n"
    mark = "\ufeff" if encoding in {"utf-16-le", "utf-16-be"} else ""
    (tmp_path / "a.yaml").write_bytes((mark + text).encode(encoding))
    found = manifests.read(str(tmp_path / "a.yaml"), "a", read_at=0.0)
    assert [s.name for s in found.all(Service)] == ["ä"]
