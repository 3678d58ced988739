"""A suggested patch as a file for a pull request: a kustomize component, with what it mends and how that was tried as its first lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from templates.words import Json, clean, percent

if TYPE_CHECKING:
    from collections.abc import Sequence


def kustomize(finding: Json, target: Json, operations: Sequence[Json], tried: str) -> str:
    """The patch of a finding on `target` {"group", "version", "kind", "namespace", "name"}; `tried` is when it was simulated."""
    share = (
        f"{percent(finding['failing_share'])} of the requests of a rule fail without it"
        if finding["failing_share"]
        else "nothing fails yet"
    )
    told = [
        f"{finding['code']} {finding['cause']}: {finding['host']} in {finding['cluster']}",
        finding["message"],
        f"{share}. {finding['fix']}",
        f"Simulated {tried} on everything that meshwhy reads: the fault is gone, and nothing else is introduced.",
        "The same by hand:",
        f"  {finding['patch']}",
    ]
    component = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "patches": [
            {
                "target": {k: v for k, v in target.items() if v},
                "patch": yaml.safe_dump(list(operations), sort_keys=False, allow_unicode=True),
            }
        ],
    }
    head = "\n".join(f"# {clean(line)}" for line in told)
    return f"{head}\n{yaml.dump(component, Dumper=_Blocks, sort_keys=False, allow_unicode=True, width=1000)}"


class _Blocks(yaml.SafeDumper):
    """Text of several lines as it stands."""


_Blocks.add_representer(str, lambda d, text: d.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None))
