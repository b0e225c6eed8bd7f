"""From a model name in a request to a verified adapter folder."""

import asyncio
import json
import threading
from pathlib import Path

from vllm.logger import init_logger
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver

from lorry_components.models.bases import list_base_files
from lorry_registry.errors import AdapterRejectedError, BaseModelError, LorryError, NotFoundError
from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.files.digests import digest_files
from lorry_registry.manifest import Manifest
from lorry_registry.records.vllm_support import list_refusals
from lorry_registry.registry import Registry, Resolution

# Below vLLM's own logger, whose handler shows it.
_LOGGER = init_logger("vllm.lorry")


class LorryResolver(LoRAResolver):
    """Finds adapters in a registry, checks them, and hands their folders to vLLM.

    vLLM asks once for a name and keeps the answer as long as it runs: a champion that moves is served under
    its task's name after a restart, and at once under ``TASK@sha256:HEX``.

    Args:
        registry: Where the adapters are.
        digests: The folder of digests of files that were hashed before.
    """

    def __init__(self, registry: Registry, *, digests: Path) -> None:
        self._registry = registry
        self._digests = DigestCache(digests)
        self._fingerprints: dict[str, str] = {}
        self._lock = threading.Lock()

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """Return where an adapter is; None: it is not served, and the log says why.

        Args:
            base_model_name: What vLLM was started with, ``--model``.
            lora_name: ``TASK`` or ``TASK@sha256:HEX``.
        """
        try:
            return await asyncio.to_thread(self._resolve, base_model_name, lora_name)
        except LorryError as error:
            _LOGGER.warning("lorry does not serve %r: %s", lora_name, error)
        except Exception:
            # vLLM answers a request whose resolver fails with a server error, and asks no other resolver.
            _LOGGER.exception("lorry could not look for %r", lora_name)
        return None

    def _resolve(self, base_model_name: str, lora_name: str) -> LoRARequest:
        found = self._find(lora_name)
        self._check_base(base_model_name, found.manifest)
        folder = self._registry.fetch(found.adapter_id)
        config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        if reasons := list_refusals(found.manifest, config):
            raise AdapterRejectedError(
                f"vLLM cannot serve it: {'; '.join(reasons)}",
                where=lora_name,
                todo="serve it with `lorry serve`, or train the task with method lora",
            )
        _LOGGER.info("%s is version %d, %s, in %s", lora_name, found.version, found.adapter_id, folder)
        # vLLM numbers its adapters itself.
        return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=str(folder))

    def _find(self, lora_name: str) -> Resolution:
        task, _, adapter_id = lora_name.partition("@")
        if not adapter_id:
            return self._registry.resolve(task)
        for version in self._registry.list_versions(task):
            if version.adapter_id == adapter_id:
                return self._registry.resolve(task, version.number)
        raise NotFoundError(
            f"task {task} has no version {adapter_id}",
            where=lora_name,
            todo=f"choose one that `lorry history {task}` names",
        )

    def _check_base(self, base_model_name: str, manifest: Manifest) -> None:
        with self._lock:
            if base_model_name not in self._fingerprints:
                self._fingerprints[base_model_name] = self._compute_fingerprint(base_model_name)
        fingerprint = self._fingerprints[base_model_name]
        if fingerprint != manifest.base.fingerprint:
            raise BaseModelError(
                f"it was trained on {manifest.base.model} with fingerprint {manifest.base.fingerprint}, "
                f"and vLLM serves a base with fingerprint {fingerprint}",
                where=base_model_name,
                todo="start vLLM with the folder of that base",
            )

    def _compute_fingerprint(self, base_model_name: str) -> str:
        folder = Path(base_model_name)
        if not folder.is_dir():
            raise BaseModelError(
                "only a base in a folder can be compared with an adapter's",
                where=base_model_name,
                todo="start vLLM with the folder of the base; `lorry export vllm` prints it",
            )
        _, names = list_base_files(folder)
        return digest_files(folder, names, digest=self._digests.digest_file)
