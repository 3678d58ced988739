"""Manifests as a cluster: what `kubectl get -o yaml|json`, must-gather and `istioctl bug-report` write, read and written again.

What must stay true: whatever a file holds, the answer is a Cluster or one clear sentence (BadSource). One broken file of many becomes a
Malformed and never stops the rest. Nothing of an archive touches the disk, and no input makes us allocate without bound. What `write` wrote,
`read` reads back equal; Secrets, the environment of applications and the annotations of other tools are never written.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import re
import stat
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import msgspec
import yaml
from msgspec import Struct

from checks.mesh import Cluster
from checks.resources import (
    AUTHORITY_KEYS,
    KIND_OF,
    MADE_OF,
    BackendTLSPolicy,
    ConfigMap,
    Container,
    Controlled,
    EndpointConditions,
    EndpointSlice,
    Malformed,
    ObjectReference,
    Pod,
    Resource,
    Secret,
    SliceEndpoint,
    SlicePort,
    kind_of,
    parse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

MAX_FILE = 512 << 20  # bytes of one file or archive member
MAX_TOTAL = 4 << 30  # bytes of a whole source, unpacked
MAX_DEPTH = 200  # nesting of one YAML document: libyaml's composer recurses on the C stack
MAX_NODES = 5_000_000  # nodes of one YAML document after its aliases are followed
_HEAD = 1 << 16  # bytes by which a file among many is judged


class BadSource(Exception):
    """A source that cannot be read (or written) as manifests; the message is one sentence."""


class OtherKinds(BadSource):
    """A source that holds manifests, and none of a kind that is read."""


def read(path: str, name: str, *, mesh: str = "", read_at: float) -> Cluster:
    """The cluster that the manifests of a file, a directory, an archive (.tar.gz, .tgz, .tar, .zip) or `-` (stdin) describe.

    Raises BadSource, with file and line where there is one, when nothing can be read.
    """
    return _gather(_files(path), path, name, mesh, read_at)


def read_bytes(data: bytes, shown: str, name: str, *, read_at: float) -> Cluster:
    """As `read`, of text or an archive at hand; `shown` is what people call it. Raises BadSource."""
    return _gather(_one(shown, io.BytesIO(data)), shown, name, "", read_at)


def _gather(files: Iterable[_File | Malformed], path: str, name: str, mesh: str, read_at: float) -> Cluster:
    gathered = _Gathered()
    for file in files:
        if isinstance(file, Malformed):
            gathered.malformed.append(file)
            continue
        try:
            for line, document in _documents(file):
                if file.speaks:
                    gathered.take(document, file.name, line)
        except BadSource as error:
            if not file.one_of_many:
                raise
            gathered.malformed.append(Malformed(file.name, str(error).removeprefix(f"{file.name}:")))
    return gathered.cluster(path, name, mesh, read_at)


# --- documents -------------------------------------------------------------------------------------------------------------


class _File(NamedTuple):
    name: str
    data: bytes
    one_of_many: bool
    speaks: bool = True  # of manifests; one that does not is read only to see whether it is a broken one


_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0o?[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+)$")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: times stay text, `1:20` is no number in base 60, `1e3` is one, and the key of a mapping is always text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way to configure a loader
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":int", ":float", ":value"))]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        """The mapping, with `8080:` and `on:` as the text that JSON has there."""
        self.flatten_mapping(node)
        out: dict[Any, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be text", key.start_mark)
            out[key.value] = self.construct_object(value, deep=deep)
        return out


class _Dumper(yaml.CSafeDumper):
    """Quotes whatever _Loader would not read back as text."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        """Always: kubectl writes no anchors."""
        return True


for _yaml_class in (_Loader, _Dumper):
    _yaml_class.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
    _yaml_class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


class _Endpoints(Struct, rename="camel"):
    """v1 Endpoints, the older form of EndpointSlices: `istioctl bug-report` collects only these."""

    metadata: Controlled = Controlled()
    subsets: tuple[_EndpointSubset, ...] | None = None

    def slices(self) -> Iterator[EndpointSlice]:
        """The EndpointSlices that Kubernetes keeps beside it: one for each subset and address family.

        An address of a pod comes from the endpoints controller, which leaves out pods that terminate (ShouldPodBeInEndpoints); of one that a
        person wrote, mirroring says nothing of the kind.
        """
        for i, subset in enumerate(self.subsets or ()):
            for family in ("IPv4", "IPv6"):
                endpoints = tuple(
                    SliceEndpoint(
                        (a.ip,),
                        EndpointConditions(ready=ready, serving=ready, terminating=False if a.target_ref else None),
                        a.node_name,
                        None,
                        a.hostname,
                        a.target_ref,
                    )
                    for ready, addresses in ((True, subset.addresses), (False, subset.not_ready_addresses))
                    for a in addresses or ()
                    if (":" in a.ip) == (family == "IPv6")
                )
                if endpoints:
                    labels = {**(self.metadata.labels or {}), "kubernetes.io/service-name": self.metadata.name, MADE_OF: f"subsets[{i}]."}
                    metadata = msgspec.structs.replace(self.metadata, name=f"{self.metadata.name}-{family.lower()}-{i}", labels=labels)
                    yield EndpointSlice(metadata=metadata, address_type=family, endpoints=endpoints, ports=subset.ports)


class _EndpointAddress(Struct, rename="camel"):
    ip: str = ""
    hostname: str | None = None
    node_name: str | None = None
    target_ref: ObjectReference | None = None


class _EndpointSubset(Struct, rename="camel"):
    addresses: tuple[_EndpointAddress, ...] | None = None
    not_ready_addresses: tuple[_EndpointAddress, ...] | None = None
    ports: tuple[SlicePort, ...] | None = None


class _Recording(Struct, rename="camel"):
    """What a recording could not see, so that a recorded gap is not read back as `there is none`."""

    unreadable: dict[str, str] = {}
    malformed: tuple[Malformed, ...] = ()


_RECORDING = ("meshwhy.io/v1", "Recording")


class _Head(Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""
    items: tuple[msgspec.Raw, ...] | None = None


_head = msgspec.json.Decoder(_Head)


class _Gathered:
    """What was found in a source so far."""

    def __init__(self) -> None:
        self.objects: list[Resource] = []
        self.malformed: list[Malformed] = []
        self.origins: dict[str, tuple[str, int]] = {}
        self.unreadable: dict[str, str] = {}
        self._endpoints: list[tuple[_Endpoints, str, int]] = []
        self._configs: dict[tuple[str, str], tuple[ConfigMap, str, int]] = {}
        self._documents = 0
        self._passed: Counter[str] = Counter()
        self._understood = False

    def take(self, document: Any, file: str, line: int) -> None:
        """Add one document: a mapping from YAML, JSON bytes, or what a document holds that is no manifest at all."""
        self._documents += 1
        if not isinstance(document, bytes | dict):
            return
        try:
            raw = document if isinstance(document, bytes) else msgspec.json.encode(document)
            head = _head.decode(raw)
        except (msgspec.ValidationError, TypeError):
            self._odd(document, file, line)
        except (RecursionError, UnicodeError, OverflowError) as error:
            self.malformed.append(Malformed(f"{file}:{line}", str(error)))
        else:
            self._take(head, raw, file, line)

    def _take(self, head: _Head, raw: bytes, file: str, line: int) -> None:
        match (head.api_version, head.kind):
            case ("", _) | (_, ""):
                self._odd(msgspec.json.decode(raw), file, line)
            case ("meshwhy.io/v1", "Recording"):
                self._take_recording(raw, file, line)
            case ("v1", "Endpoints"):
                self._take_endpoints(raw, file, line)
            case (version, kind) if kind_of(version, kind) or kind.endswith("List"):
                self._understood = True
                for found in parse(raw):
                    if isinstance(found, Malformed):
                        self.malformed.append(found)
                        self.origins.setdefault(found.ref, (file, line))
                    else:
                        self._keep(found, file, line)
            case (_, kind):
                self._passed[kind] += 1

    def _odd(self, document: Any, file: str, line: int) -> None:
        # Half a head is a manifest with a slip in it, and is said; none is another tool's file (values, kustomization) and is not ours.
        held = msgspec.json.decode(document) if isinstance(document, bytes) else document
        if isinstance(held, dict) and "metadata" in held and ("kind" in held or "apiVersion" in held):
            self.malformed.append(Malformed(f"{file}:{line}", "it is no manifest: apiVersion and kind must both be given, as text"))

    def _keep(self, found: Resource, file: str, line: int) -> None:
        kind = KIND_OF[type(found)]
        if not found.name:
            self.malformed.append(Malformed(f"{file}:{line}", f"a {kind.kind} without metadata.name"))
            return
        if kind.namespaced and not found.namespace:
            found = msgspec.structs.replace(found, metadata=msgspec.structs.replace(found.metadata, namespace="default"))
        if isinstance(found, ConfigMap) and not _of_istiod(found):
            held = {k: "" for k in AUTHORITY_KEYS if (found.data or {}).get(k)}
            self._configs[found.namespace, found.name] = msgspec.structs.replace(found, data=held), file, line
            return
        self.objects.append(found)
        self.origins[found.ref] = (file, line)

    def _take_endpoints(self, raw: bytes, file: str, line: int) -> None:
        self._understood = True
        try:
            self._endpoints.append((msgspec.json.decode(raw, type=_Endpoints), file, line))
        except msgspec.ValidationError as error:
            self.malformed.append(Malformed(f"{file}:{line}", f"Endpoints: {error}"))

    def _take_recording(self, raw: bytes, file: str, line: int) -> None:
        self._understood = True
        try:
            recording = msgspec.json.decode(raw, type=_Recording)
        except msgspec.ValidationError as error:
            self.malformed.append(Malformed(f"{file}:{line}", f"Recording: {error}"))
            return
        self.unreadable.update(recording.unreadable)
        self.malformed.extend(recording.malformed)

    def cluster(self, path: str, name: str, mesh: str, read_at: float) -> Cluster:
        """All of it; raises BadSource when it is nothing."""
        sliced = {(o.namespace, o.service) for o in self.objects if isinstance(o, EndpointSlice)}
        for endpoints, file, line in self._endpoints:
            if (endpoints.metadata.namespace, endpoints.metadata.name) not in sliced:
                for made in endpoints.slices():
                    self._keep(made, file, line)
        # of other ConfigMaps none is kept but those in which a policy looks for its certificate authority, and of them nothing but the keys
        for policy in [o for o in self.objects if isinstance(o, BackendTLSPolicy)]:
            for ref in policy.spec.validation.ca_certificate_refs or ():
                if ref.kind == "ConfigMap" and (known := self._configs.pop((policy.namespace, ref.name), None)) is not None:
                    self.objects.append(known[0])
                    self.origins[known[0].ref] = known[1:]
        self._miss_pods()
        self._address_pods()
        if not (self.objects or self.malformed or self.unreadable or self._understood):
            raise (OtherKinds if self._passed else BadSource)(f"{_shown(path)} {self._nothing()}.")
        return Cluster(
            name=name,
            mesh=mesh,
            objects=Cluster.index(self.objects),
            unreadable=self.unreadable,
            malformed=tuple(dict.fromkeys(self.malformed)),
            origins=self.origins,
            read_at=read_at,
            synced="*" not in self.unreadable,
            passed=dict(self._passed),
        )

    def _miss_pods(self) -> None:
        """Where endpoints are pods and there is no Pod at all, Pods were left out: no cluster is without any."""
        if not any(isinstance(o, Pod) for o in self.objects) and any(
            e.target_ref is not None and e.target_ref.kind == "Pod"
            for o in self.objects
            if isinstance(o, EndpointSlice)
            for e in o.endpoints or ()
        ):
            self.unreadable.setdefault(KIND_OF[Pod].key, "there is no Pod in these manifests, and endpoints name some")

    def _address_pods(self) -> None:
        """A pod that was written without a status has the address of the first endpoint that refers to it."""
        at: dict[tuple[str, str], str] = {}
        for o in self.objects:
            for e in (o.endpoints or ()) if isinstance(o, EndpointSlice) else ():
                if e.target_ref is not None and e.target_ref.kind == "Pod" and e.addresses:
                    at.setdefault((e.target_ref.namespace or o.namespace, e.target_ref.name), e.addresses[0])
        unsaid = Pod().status
        for i, o in enumerate(self.objects):
            if isinstance(o, Pod) and o.status == unsaid and (address := at.get((o.namespace, o.name))):
                self.objects[i] = msgspec.structs.replace(o, status=msgspec.structs.replace(unsaid, pod_ip=address))

    def _nothing(self) -> str:
        if self._passed:
            kinds = ", ".join(kind for kind, _ in self._passed.most_common(5))
            return f"holds manifests, but none of a kind that meshwhy reads (it has {kinds})"
        if self._documents:
            return "holds no Kubernetes manifests: no document in it has apiVersion and kind"
        return "holds no manifests: nothing that looks like YAML or JSON of Kubernetes objects"


def _of_istiod(found: ConfigMap) -> bool:
    """Whether this is istiod's own ConfigMap: MeshConfig or meshNetworks under the name `istio` or `istio-<revision>`."""
    return (found.name == "istio" or found.name.startswith("istio-")) and bool({"mesh", "meshNetworks"} & set(found.data or ()))


def _documents(file: _File) -> Iterator[tuple[int, Any]]:
    """Each document of a file, and each item of a List in it, with its line; raises BadSource on a syntax error."""
    if file.data.lstrip()[:1] in {b"{", b"["}:
        try:
            yield from _json(file.data)
        except msgspec.DecodeError as error:
            # JSON may be followed by `---` or by another object, and YAML may begin with a brace.
            if file.name.endswith(".json") and b"trailing characters" not in str(error).encode():
                raise BadSource(f"{file.name}:{_json_line(file.data, str(error))}: it is not JSON: {error}") from None
        except (RecursionError, UnicodeError) as error:
            raise BadSource(f"{file.name}:1: it is not JSON: {error}") from None
        else:
            return
        with contextlib.suppress(ValueError, RecursionError):
            yield from list(_json_stream(file.data))
            return
    if file.data[:2] in {b"\xff\xfe", b"\xfe\xff"}:  # what `kubectl get -o yaml > file` leaves in Windows' PowerShell
        with contextlib.suppress(UnicodeDecodeError):
            file = file._replace(data=file.data.decode("utf-16").encode())
    try:
        text = file.data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = file.data.count(b"\n", 0, error.start) + 1
        raise BadSource(f"{file.name}:{line}: it is not text in UTF-8") from None
    try:
        _guard(file)
        yield from _yaml(text, file)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadSource(f"{file.name}:{_line(mark)}: it is not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise BadSource(f"{file.name}:1: it is not YAML: {' '.join(str(error).split())}") from None


def _json(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The object, or each item of the List, that a JSON text is; raises msgspec.DecodeError."""
    if data.lstrip()[:1] == b"[":
        msgspec.json.decode(data, type=tuple[msgspec.Raw, ...])
        yield 1, b"[]"
        return
    try:
        head = _head.decode(data)
    except msgspec.ValidationError:
        msgspec.json.decode(data)  # what has a wrong type in its head may have a broken tail
        yield 1, data
        return
    if head.items is None or not head.kind.endswith("List"):
        yield 1, data
        return
    position, line = 0, 1
    own = head.kind.removesuffix("List")
    for item in head.items:
        raw = bytes(item)
        start = data.find(raw, position)
        line += data.count(b"\n", position, start)
        yield line, _of_list(raw, head.api_version, own) if own else raw
        line += raw.count(b"\n")
        position = start + len(raw)


def _of_list(raw: bytes, api_version: str, kind: str) -> bytes:
    """An item of a ServiceList and the like, which the API server writes without what the list says of all of them."""
    try:
        head = _head.decode(raw)
    except msgspec.ValidationError:
        return raw
    if head.api_version or head.kind:
        return raw
    inner = raw.lstrip()[1:].lstrip()
    if inner[:1] == b"}":
        return raw
    return b'{"apiVersion":%b,"kind":%b,%b' % (msgspec.json.encode(api_version), msgspec.json.encode(kind), inner)


def _json_stream(data: bytes) -> Iterator[tuple[int, bytes]]:
    """JSON texts one after the other, as two commands into one file leave them; raises ValueError when it is anything else."""
    text, decoder, position = data.decode(), json.JSONDecoder(), 0
    while position < len(text):
        _, end = decoder.raw_decode(text, position)
        line = text.count("\n", 0, position)
        for inner, raw in _json(text[position:end].encode()):
            yield line + inner, raw
        position = end + len(text[end:]) - len(text[end:].lstrip())


def _json_line(data: bytes, error: str) -> int:
    at = re.search(r"\(byte (\d+)\)", error)
    return data.count(b"\n", 0, int(at[1])) + 1 if at else 1


def _yaml(text: str, file: _File) -> Iterator[tuple[int, Any]]:
    """Each document of a YAML text, and each item of a List in it; raises yaml.YAMLError."""
    loader = _Loader(text)
    aliases = "*" in text and "&" in text
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None:
                continue
            if aliases:
                _bounded(node, file)
            for part in _parts(node):
                for item in _items(part) or (part,):
                    yield _line(item.start_mark), loader.construct_document(item)
    except RecursionError:
        raise BadSource(f"{file.name}:1: it is nested deeper than {MAX_DEPTH} levels") from None
    finally:
        loader.dispose()


def _line(mark: Any) -> int:
    return int(mark.line) + 1 if mark else 1


def _parts(node: yaml.Node) -> list[yaml.Node]:
    """A document, or those that two commands left in one file without `---`: where the first key of a manifest comes again, another one begins."""
    keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    if not keys or keys[0] not in {"apiVersion", "kind"}:
        return [node]
    starts = [i for i, key in enumerate(keys) if key == keys[0]]
    inner = zip(starts, [*starts[1:], len(keys)], strict=True)
    return [yaml.MappingNode(node.tag, node.value[a:b], node.value[a][0].start_mark, node.end_mark) for a, b in inner]


def _items(node: yaml.Node) -> list[yaml.Node]:
    """The items of a List, so that each one can name its own line; empty for everything else."""
    if not isinstance(node, yaml.MappingNode):
        return []
    fields = {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}
    kind, items = fields.get("kind"), fields.get("items")
    if isinstance(kind, yaml.ScalarNode) and str(kind.value).endswith("List") and isinstance(items, yaml.SequenceNode):
        own, version = str(kind.value).removesuffix("List"), fields.get("apiVersion")
        for item in items.value if own and version is not None else ():  # as _of_list
            if isinstance(item, yaml.MappingNode) and not {"apiVersion", "kind"} & {k.value for k, _ in item.value}:
                item.value[:0] = [(_text("apiVersion", item), version), (_text("kind", item), _text(own, item))]
        return list(items.value)
    return []


def _text(value: str, beside: yaml.Node) -> yaml.ScalarNode:
    return yaml.ScalarNode("tag:yaml.org,2002:str", value, beside.start_mark, beside.start_mark)


def _guard(file: _File) -> None:
    """Refuse nesting that would overflow the C stack; looked for only where there are enough brackets (or dashes) for it."""
    if file.data.count(b"[") + file.data.count(b"{") < 1000 and not re.search(rb"(?:[-?:] ){50}", file.data):
        return
    depth = 0
    for event in yaml.parse(file.data, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise BadSource(f"{file.name}:{_line(event.start_mark)}: it is nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _bounded(root: yaml.Node, file: _File) -> None:
    """Refuse a document whose aliases make it endless or huge."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        known = sizes.get(id(node))
        if known is None:
            sizes[id(node)] = MAX_NODES  # what an alias to a node inside itself finds
            inner = () if isinstance(node, yaml.ScalarNode) else node.value
            known = 1 + sum(size(k) + size(v) for k, v in inner) if isinstance(node, yaml.MappingNode) else 1 + sum(map(size, inner))
            sizes[id(node)] = known
        return known

    if size(root) > MAX_NODES:
        raise BadSource(f"{file.name}:{_line(root.start_mark)}: its aliases unfold to more than {MAX_NODES:,} nodes")


# --- files -----------------------------------------------------------------------------------------------------------------

_SUFFIXES = (".yaml", ".yml", ".json")
_MANIFEST = re.compile(rb"""\b(?:apiVersion|kind|items)["']?\s*:""")


def _shown(path: str) -> str:
    return "stdin" if path == "-" else path


def _files(path: str) -> Iterator[_File | Malformed]:
    """Every file of a source that may hold manifests, and what of many cannot be read; raises BadSource when the source itself cannot."""
    try:
        if path == "-":
            yield from _one("stdin", io.BytesIO(_bytes(sys.stdin.buffer, "stdin")))
        elif Path(path).is_dir():
            yield from _directory(path)
        elif Path(path).is_file() or Path(path).is_fifo():
            with Path(path).open("rb") as opened:
                yield from _one(path, opened if opened.seekable() else io.BytesIO(_bytes(opened, path)))
        else:
            raise BadSource(f"{path} is not there." if not os.path.lexists(path) else f"{path} is neither a file nor a directory.")
    except OSError as error:
        raise BadSource(f"{_shown(path)} cannot be read: {error.strerror or error}.") from None


def _one(name: str, opened: BinaryIO) -> Iterator[_File]:
    """A file by what it is, not by its name: an archive, something compressed, or manifests."""
    magic = opened.read(512)
    opened.seek(0)
    try:
        if magic[:4] in {b"PK\x03\x04", b"PK\x05\x06"}:
            yield from _zip(name, opened)
        elif magic[257:262] == b"ustar" or magic[:2] == b"\x1f\x8b" or magic[:3] == b"BZh" or magic[:6] == b"\xfd7zXZ\x00":
            yield from _tar(name, opened)
        else:
            yield _File(name, _bytes(opened, name), one_of_many=False)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError) as error:
        raise BadSource(f"{name} is a damaged archive: {error}.") from None
    except (RuntimeError, NotImplementedError) as error:  # what zipfile raises for encryption and unknown compression
        raise BadSource(f"{name} is an archive that cannot be unpacked: {error}.") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise BadSource(f"{name} is a damaged archive: {error}.") from None  # bz2 has no exception of its own


def _directory(path: str) -> Iterator[_File | Malformed]:
    # Dot names are left out: .git, and the ..data links of a mounted ConfigMap, whose plain names lead to the same files.
    total = 0
    locked: list[Malformed] = []

    def lock(error: OSError) -> None:
        if error.filename == path:
            raise error
        locked.append(Malformed(error.filename, error.strerror or str(error)))

    for folder, inner, names in os.walk(path, onerror=lock):
        inner[:] = sorted(n for n in inner if not n.startswith("."))
        for name in sorted(n for n in names if not n.startswith(".")):
            file = Path(folder, name)
            try:
                if not file.is_file():
                    continue
                with file.open("rb") as opened:
                    head = opened.read(_HEAD)
                    data = head + _bytes(opened, str(file)) if _wanted(name, head) else None
            except OSError as error:
                if PurePosixPath(name).suffix.lower() in {"", *_SUFFIXES}:
                    yield Malformed(str(file), error.strerror or str(error))
                continue
            if data is not None:
                total += len(data)
                if total > MAX_TOTAL:
                    raise BadSource(f"{path} is larger than {MAX_TOTAL >> 20} MiB.")
                yield _File(str(file), data, one_of_many=True, speaks=_speaks(head))
    yield from locked


def _wanted(name: str, head: bytes) -> bool:
    """Whether a file among many may hold manifests: by its suffix, or (a bug-report's `crs`) without one by how it begins.

    A small one with the suffix is looked at even if it says nothing of manifests: it may be one that broke while it was written.
    """
    suffix = PurePosixPath(name).suffix.lower()
    begins = head.lstrip().startswith((b"apiVersion:", b"items:", b"kind:", b"---", b"{"))
    return (suffix in _SUFFIXES and (_speaks(head) or len(head) < _HEAD)) or (not suffix and begins and _speaks(head))


def _speaks(head: bytes) -> bool:
    return _MANIFEST.search(head) is not None


_UNPACK: Mapping[bytes, Callable[[BinaryIO], Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


def _tar(name: str, opened: BinaryIO) -> Iterator[_File]:
    try:
        archive = tarfile.open(fileobj=opened, mode="r:*")  # noqa: SIM115 - closed below; only the opening may fail like this
    except tarfile.ReadError:
        opened.seek(0)
        magic = opened.read(2)
        opened.seek(0)
        if (unpack := _UNPACK.get(magic)) is None:
            raise
        with unpack(opened) as unpacked:  # one compressed manifest
            yield _File(name, _bytes(unpacked, name), one_of_many=False)
        return
    total = 0
    with archive:
        for member in archive:
            total += member.size
            _refuse(name, member.name, special=member.isdev(), total=total)
            if not member.isreg() or _hidden(member.name):
                continue  # links are never followed, so they cannot lead anywhere
            data = archive.extractfile(member)
            if data is not None and _wanted(member.name, head := data.read(_HEAD)):
                whole = head + _bytes(data, member.name)
                yield _File(f"{name}/{member.name.removeprefix('./')}", whole, one_of_many=True, speaks=_speaks(head))


def _zip(name: str, opened: BinaryIO) -> Iterator[_File]:
    total = 0
    with zipfile.ZipFile(opened) as archive:
        for member in archive.infolist():
            total += member.file_size
            mode = member.external_attr >> 16
            special = stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
            _refuse(name, member.filename, special=special, total=total)
            if member.is_dir() or stat.S_ISLNK(mode) or _hidden(member.filename):
                continue
            with archive.open(member) as data:
                if _wanted(member.filename, head := data.read(_HEAD)):
                    whole = head + _bytes(data, member.filename)
                    yield _File(f"{name}/{member.filename}", whole, one_of_many=True, speaks=_speaks(head))


def _refuse(archive: str, member: str, *, special: bool, total: int) -> None:
    parts = PurePosixPath(member.replace("\\", "/")).parts
    if ".." in parts or member.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", member):
        raise BadSource(f"{archive} is refused: its member {member!r} leads out of the archive.")
    if special:
        raise BadSource(f"{archive} is refused: its member {member!r} is a device.")
    if total > MAX_TOTAL:
        raise BadSource(f"{archive} is refused: it unpacks to more than {MAX_TOTAL >> 20} MiB.")


def _hidden(member: str) -> bool:
    return any(part.startswith(".") and part != "." for part in PurePosixPath(member).parts)


def _bytes(opened: BinaryIO | Any, name: str) -> bytes:
    data: bytes = opened.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise BadSource(f"{name} is larger than {MAX_FILE >> 20} MiB.")
    return data


# --- writing ---------------------------------------------------------------------------------------------------------------

# Containers of Istio itself: their environment and arguments are configuration that rules read. Those of applications may hold passwords.
ISTIO_CONTAINERS = frozenset({"discovery", "istio-proxy", "istio-init", "istio-validation"})
_KEPT_ANNOTATION = re.compile(r"(?:[a-z0-9.-]+\.)?istio\.io/|meshwhy\.io/|deployment\.kubernetes\.io/revision$")


def write(cluster: Cluster, path: str) -> None:
    """Record a cluster as manifests that `read` reads back equal: YAML, JSON (`.json`), or an archive (`.tar.gz`, `.tgz`); `-` is stdout.

    Raises BadSource when the file cannot be written; a file that was there before is then still whole.
    """
    documents = dict(_manifests(cluster))
    if path.endswith((".tar.gz", ".tgz")):
        data = _packed(documents, cluster.read_at)
    elif path.endswith(".json"):
        items = [m for group in documents.values() for m in group]
        data = json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1, ensure_ascii=False).encode() + b"\n"
    else:
        data = _dumped(m for group in documents.values() for m in group)
    try:
        if path == "-":
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        _replace(Path(path), data)
    except OSError as error:
        raise BadSource(f"{path} cannot be written: {error.strerror or error}.") from None


def _replace(path: Path, data: bytes) -> None:
    """Write beside the target and rename, so that nobody reads half a file."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(data)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _manifests(cluster: Cluster) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The cluster as manifests, by the file that an archive keeps them in."""
    if cluster.unreadable or cluster.malformed:
        api_version, kind = _RECORDING
        gaps = {"unreadable": dict(cluster.unreadable), "malformed": [list(m) for m in cluster.malformed]}
        yield "recording.yaml", [{"apiVersion": api_version, "kind": kind, **gaps}]
    for struct, namespaces in sorted(cluster.objects.items(), key=lambda entry: KIND_OF[entry[0]].key):
        for namespace, named in sorted(namespaces.items()):
            folder = f"namespaces/{namespace}" if namespace else "cluster"
            if named and struct is not Secret:
                yield f"{folder}/{KIND_OF[struct].key}.yaml", [_manifest(o) for _, o in sorted(named.items())]


def _manifest(resource: Resource) -> dict[str, Any]:
    kind = KIND_OF[type(resource)]
    head = {"apiVersion": f"{kind.group}/{kind.versions[0]}" if kind.group else kind.versions[0], "kind": kind.kind}
    kept = {k: v for k, v in resource.annotations.items() if _KEPT_ANNOTATION.match(k)} or None
    slim: Resource = msgspec.structs.replace(resource, metadata=msgspec.structs.replace(resource.metadata, annotations=kept))
    return {**head, **_plain(slim)}


def _plain(value: Any) -> Any:
    """A struct as JSON has it, without the fields that hold their default."""
    if isinstance(value, Container) and value.name not in ISTIO_CONTAINERS:
        value = msgspec.structs.replace(value, env=None, args=None)
    if isinstance(value, Struct):
        fields = ((f, getattr(value, f.name)) for f in msgspec.structs.fields(value))
        return {f.encode_name: _plain(v) for f, v in fields if f.default is msgspec.NODEFAULT or v != f.default}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def _dumped(manifests: Iterable[Mapping[str, Any]]) -> bytes:
    return bytes(
        yaml.dump_all(manifests, Dumper=_Dumper, encoding="utf-8", sort_keys=False, allow_unicode=True, explicit_start=True, width=140)
    )


def _packed(documents: Mapping[str, list[dict[str, Any]]], read_at: float) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, manifests in documents.items():
            data = _dumped(manifests)
            member = tarfile.TarInfo(f"recording/{name}")
            member.size, member.mtime, member.mode = len(data), int(read_at), 0o644
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()
