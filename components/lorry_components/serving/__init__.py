"""Serving the champions of many tasks from one process: what ``lorry serve`` runs.

:mod:`~lorry_components.serving.shared_bases` puts adapters on bases whose weights are in memory once,
:mod:`~lorry_components.serving.catalogue` says which version of each task is served and which are refused,
:mod:`~lorry_components.serving.batching` gathers the rows of concurrent requests,
:mod:`~lorry_components.serving.engine` computes them, those of several LoRA adapters in one pass by
:mod:`~lorry_components.serving.mixed_lora`, :mod:`~lorry_components.serving.open_inference` reads
and writes the documents of the Open Inference Protocol,
:mod:`~lorry_components.serving.application` is the HTTP application,
:mod:`~lorry_components.serving.metrics` counts what it answers,
:mod:`~lorry_components.serving.recorded_answers` asks a server for what is recorded of its adapters, and
:mod:`~lorry_components.serving.tokens` says who may ask it for what.
"""
