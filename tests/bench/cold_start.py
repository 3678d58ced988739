"""Cold start: a process that begins with nothing until it holds 1,000 services (argument: how many) of an API server over loopback.

    python tests/bench/cold_start.py [SERVICES]

The API server is the tests' own, in a process of its own, so that its CPU is not counted. Peak and retained memory are of this process.
"""

# ruff: noqa: T201 - a benchmark prints its figures

from __future__ import annotations

import asyncio
import gc
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from bot.clusters import Clusters, ClusterSource


def rss() -> float:
    """MB of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


async def serve(services: int, kubeconfig: str) -> None:
    from tests.apiserver import ApiServer  # noqa: PLC0415 - the measured process must not hold it
    from tests.bench.population import mesh  # noqa: PLC0415 - as above

    async with ApiServer(tls=True) as api:
        api.put(*mesh(services))
        api.kubeconfig(Path(kubeconfig))
        print("ready", flush=True)
        await asyncio.Event().wait()


async def measure(services: int, kubeconfig: str) -> None:
    bare, cpu = rss(), time.process_time()
    import kubernetes.client  # noqa: PLC0415 - what the first credentials import, counted apart
    import kubernetes.config  # noqa: F401, PLC0415 - as above

    libraries = time.process_time() - cpu
    before, wall, cpu = rss(), time.perf_counter(), time.process_time()
    clusters = Clusters([ClusterSource("east", kubeconfig=kubeconfig)])
    following = asyncio.create_task(clusters.run())
    synced = await clusters.synced(300)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    (cluster,) = clusters.clusters()
    assert synced, cluster.unreadable
    counts = {struct.__name__: sum(map(len, namespaces.values())) for struct, namespaces in cluster.objects.items()}
    assert counts["Service"] == services, (counts, cluster.unreadable)
    gc.collect()
    retained, peak = rss() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 - before
    print(f"{services:,} services, {counts['Pod']:,} pods, {sum(counts.values()):,} objects: TLS, gzip, pages of 500")
    print(f"  CPU  {cpu:6.2f} s    wall {wall:6.2f} s (the server's own time included)")
    print(f"  RSS +{retained:6.1f} MB retained, +{peak:.1f} MB peak")
    print(f"  and once for every process: the kubernetes package {libraries:.2f} s of CPU, {before - bare:.1f} MB")
    started, n = time.process_time(), 200
    for _ in range(n):
        clusters.clusters()
    print(f"  clusters() {(time.process_time() - started) / n * 1e6:.0f} us")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(int(sys.argv[2]), sys.argv[3]))
        return
    services = int(sys.argv[1]) if sys.argv[1:] else 1000
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = str(Path(folder) / "kubeconfig")
        with subprocess.Popen([sys.executable, __file__, "serve", str(services), kubeconfig], stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout is not None
                server.stdout.readline()
                asyncio.run(measure(services, kubeconfig))
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
