"""A plugin for vLLM: adapters are found in a registry of Lorry's, by the names of their tasks.

vLLM asks :class:`~lorry_vllm.resolver.LorryResolver` for a model name that it does not know. ``TASK`` is the
task's champion, and ``TASK@sha256:HEX`` that version of it. What the registry refuses, such as a damaged
file, a missing signature or another base, is not served, and the log says why.
"""

import os
from pathlib import Path

RESOLVER_NAME = "lorry"


def register() -> None:
    """Register the resolver in this process: vLLM calls it, through the entry point ``vllm.general_plugins``.

    The registry is the one that ``LORRY_HOME``, ``LORRY_STORE`` or ``lorry.toml`` name, as for ``lorry``.

    Raises:
        InvalidTaskError: ``lorry.toml`` has faults.
        StoreError: No store serves the address.
    """
    from vllm.lora.resolver import LoRAResolverRegistry

    from lorry_registry.registry import Registry
    from lorry_registry.settings import Settings
    from lorry_vllm.resolver import LorryResolver

    # vLLM loads its plugins once in each of its processes, and more often in tests.
    if RESOLVER_NAME in LoRAResolverRegistry.get_supported_resolvers():
        return
    settings = Settings.load(os.environ, Path.cwd())
    LoRAResolverRegistry.register_resolver(
        RESOLVER_NAME, LorryResolver(Registry.open(settings), digests=settings.digests)
    )


__all__ = ["RESOLVER_NAME", "register"]
