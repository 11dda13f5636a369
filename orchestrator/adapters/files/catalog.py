"""ports.Catalog: the built-in templates, read and packed once per process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from orchestrator.adapters.files import bundle_store
from orchestrator.contract.bundles import MANIFEST_NAME
from orchestrator.domain.ids import Sha256
from orchestrator.ports import Template


class FolderCatalog:
    """One folder per template, each with its spawn.json.

    Raises errors.InvalidInput for a template that would be refused as a bundle: at the start of the
    process, not when a user asks for the template.
    """

    def __init__(self, folder: Path) -> None:
        self._templates: dict[str, Template] = {}
        self._data: dict[Sha256, bytes] = {}
        for manifest in sorted(folder.glob(f"*/{MANIFEST_NAME}")):
            data = bundle_store.pack(manifest.parent)
            template = _read(manifest, data)
            self._templates[template.name] = template
            self._data[template.digest] = data

    def list(self) -> Sequence[Template]:
        return tuple(self._templates.values())

    def get(self, name: str) -> Template | None:
        return self._templates.get(name)

    def data(self, digest: Sha256) -> bytes | None:
        return self._data.get(digest)


def _read(manifest: Path, data: bytes) -> Template:
    kind = bundle_store.inspect(data).kind.value
    fields = json.loads(manifest.read_text("utf-8"))
    return Template(
        name=manifest.parent.name,
        title=fields["title"],
        description=fields["description"],
        kind=kind,
        keywords=tuple(fields["keywords"]),
        emoji=fields["emoji"],
        accent=fields["accent"],
        digest=bundle_store.digest_of(data),
        size_bytes=len(data),
    )
