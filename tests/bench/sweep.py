"""What a sweep costs: `python tests/bench/sweep.py [SERVICES]` prints the CPU time of a full sweep, of one event's, and of each check.

The mesh is `population.lean`; 20000 is its full size. Goals at 20,000 services: the first full sweep in 10 s of CPU, a tick with nothing changed
in 100 ms, from an EndpointSlice event to the new verdict of all hosts 5 ms and `why` 25 ms, both 99 times of 100, and 40 MB retained for each
1,000 services. At 1,000 services an EndpointSlice event takes 1 ms. The exit status is 1 when a goal is missed. It runs with the memory settings
of the image (GLIBC_TUNABLES in the Dockerfile); set that variable to run with others.
"""

# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import random
import re
import resource
import sys
import time
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[2]))
import bot.sweep
from checks import diagnosis, finding
from checks.case import Case
from checks.mesh import Change, Cluster, Mesh
from checks.resources import EndpointConditions, EndpointSlice, Node, Pod, VirtualService, objects, parse
from tests.bench.population import lean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from checks.resources import Resource

EVENTS = 500


def generated(services: int) -> Mesh:
    found: list[Resource] = []
    for some in batched(lean(services), 10_000):
        found += objects(parse({"apiVersion": "v1", "kind": "List", "items": some}))
    return Mesh("", [Cluster("east", objects=Cluster.index(found))], 0.0)


def batched(things: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    while some := list(islice(things, size)):
        yield some


def cpu_ms(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time_ns()
    found = work()
    return (time.process_time_ns() - start) / 1e6, found


def pace() -> float:
    """CPU milliseconds of a piece of work that is always the same: by it figures of two machines, or of two hours of one, are compared."""

    def work() -> int:
        known = {str(i): (i, [i]) for i in range(200_000)}
        return sum(known[k][1][0] for k in sorted(known))

    return min(cpu_ms(work)[0] for _ in range(3))


def flipped(s: EndpointSlice, pick: random.Random) -> EndpointSlice:
    """A slice whose every endpoint, or one of them, changes its readiness."""
    found = list(s.endpoints or ())
    for i in range(len(found)) if pick.random() < 0.2 or not found else [pick.randrange(len(found))]:
        found[i] = replace(found[i], conditions=EndpointConditions(ready=not found[i].conditions.ready))
    return replace(s, endpoints=tuple(found))


def restarted(p: Pod, _: random.Random) -> Pod:
    """A pod whose readiness changes."""
    status = "False" if p.ready else "True"
    return replace(p, status=replace(p.status, conditions=(replace((p.status.conditions or ())[0], status=status),)))


def reported(n: Node, pick: random.Random) -> Node:
    """A node's status report."""
    return replace(n, metadata=replace(n.metadata, resource_version=str(pick.random())))


def events(
    mesh: Mesh, swept: diagnosis.Sweep, kind: type[Resource], change: Callable[[Any, random.Random], Resource], count: int
) -> list[float]:
    """The CPU milliseconds of each event: one object changes, and the verdicts of all hosts are there."""
    pick = random.Random(5)  # noqa: S311 - the same events in every run
    taken: list[float] = []
    known = list(mesh.cluster("east").all(kind))
    for _ in range(count // 2):
        old = pick.choice(known)
        for new in (change(old, pick), old):  # and back, so that the mesh stays as well as it is
            made = [Change("east", kind, old.namespace, old.name, new)]

            def one(at: Mesh = mesh, before: diagnosis.Sweep = swept, made: list[Change] = made) -> tuple[Mesh, diagnosis.Sweep]:
                after = at.apply(made)
                return after, diagnosis.sweep(after, before)

            ms, (mesh, swept) = cpu_ms(one)
            taken.append(ms)
    return sorted(taken)


def answers(mesh: Mesh, swept: diagnosis.Sweep) -> list[float]:
    """The CPU milliseconds of `why` for every broken host and as many others, sorted; a short word as people say it."""
    pick = random.Random(6)  # noqa: S311 - the same questions in every run
    broken = sorted({f.host for f in swept.findings})
    words = [*broken, *pick.sample(diagnosis.hosts(mesh), len(broken))][:EVENTS]
    return sorted(cpu_ms(lambda w=w: diagnosis.why(w.removesuffix(".svc.cluster.local"), [mesh]))[0] for w in words)


def per_check(mesh: Mesh) -> dict[str, float]:
    """The CPU microseconds of each check for one host, looking at all of them; `(the case)` is what they share."""
    spent: dict[str, float] = defaultdict(float)
    hosts = diagnosis.hosts(mesh)
    for host in hosts:
        ms, case = cpu_ms(lambda h=host: Case.of(h, mesh))
        spent["(the case)"] += ms
        for cause, check in diagnosis.registry().items():
            ms, _ = cpu_ms(lambda c=check, k=case: list(c(k)))
            spent[cause] += ms
    return {cause: ms * 1000 / len(hosts) for cause, ms in spent.items()}


def described(v: VirtualService, pick: random.Random) -> VirtualService:
    """A write that changes nothing that is read, of a status or of managed fields: a bot's informers drop it before it comes here."""
    return replace(v, metadata=replace(v.metadata, resource_version=str(pick.random())))


def reweighed(v: VirtualService, pick: random.Random) -> VirtualService:
    """A rule whose weights change."""
    first, second = (v.spec.http or ())[0].route or ()
    share = pick.randrange(1, 100)
    route = replace(first, weight=100 - share), replace(second, weight=share)
    return replace(v, spec=replace(v.spec, http=(replace((v.spec.http or ())[0], route=route),)))


def retained() -> float:
    """Resident megabytes of this process once all that is garbage has gone back."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def main(services: int) -> int:
    goals: dict[str, tuple[float, float]] = {}

    def say(name: str, figure: float, unit: str, goal: float = 0.0, more: str = "") -> None:
        if goal:
            goals[name] = figure, goal
        print(f"{name:34} {figure:10.2f} {unit}{f'  (goal {goal:g})' if goal else ''}{more}", flush=True)

    say("this machine's pace", pace(), "ms for the same work everywhere")
    large = services >= 20_000
    empty = retained()
    mesh = generated(services)
    objects_mb = retained() - empty
    gc.collect()
    cold, sweeps = cpu_ms(lambda: bot.sweep.swept({"": mesh}, {}))
    swept = sweeps[""]
    whole_mb = retained() - empty
    gc.freeze()  # what the first sweep made stays: looking for garbage in it would be counted as some event's time
    broken = len({f.host for f in swept.findings if f.severity is finding.Severity.ERROR})
    print(
        f"{services} services, {swept.hosts} hosts, {len(diagnosis.registry())} checks, {broken} hosts broken, {len(swept.skipped)} skipped"
    )
    say("full sweep", cold / 1000, "s of CPU", 10 if large else 0, f"  {cold / swept.hosts:.3f} ms each host")
    say("objects retained", objects_mb / services * 1000, "MB per 1,000 services")
    say("retained after the sweep", whole_mb / services * 1000, "MB per 1,000 services", 40)
    tick, swept = min(cpu_ms(lambda: diagnosis.sweep(mesh, swept)) for _ in range(5))
    say("tick with nothing changed", tick, "ms", 100)
    for name, kind, change, count, goal in (
        ("EndpointSlice event", EndpointSlice, flipped, EVENTS, 5.0 if large else 1.0),
        ("Pod event", Pod, restarted, EVENTS // 5, 0.0),
        ("Node report", Node, reported, EVENTS // 5, 0.0),
        ("VirtualService, status only", VirtualService, described, 2 if large else 10, 0.0),
        ("VirtualService, new weights", VirtualService, reweighed, 20, 0.0),
    ):
        taken = events(mesh, swept, kind, change, count)
        p50, p99 = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
        say(f"{name}, p99", p99, "ms", goal, f"  {p50:.2f} p50, {taken[-1]:.2f} worst of {count}")
    say("this machine's pace", pace(), "ms for the same work everywhere")
    taken = answers(mesh, swept)
    say("why, p99", taken[len(taken) * 99 // 100], "ms", 25, f"  {taken[len(taken) // 2]:.2f} p50, {taken[-1]:.2f} worst of {len(taken)}")
    for cause, us in sorted(per_check(mesh).items(), key=lambda c: -c[1]):
        print(f"  {cause:32} {us:9.2f} us each host")
    late = [f"{name}: {figure:.2f}, goal {goal:g}" for name, (figure, goal) in goals.items() if figure > goal]
    print("\n".join(late) or "every goal is met")
    return 1 if late else 0


def as_in_the_image() -> None:
    """Begin again with the image's memory settings, which count from a process's start."""
    name = "GLIBC_TUNABLES"
    said = re.search(rf"\b{name}=(\S+)", (Path(__file__).parents[2] / "Dockerfile").read_text())
    if said is not None and name not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, name: said[1]})  # noqa: S606 - itself


if __name__ == "__main__":
    as_in_the_image()
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
