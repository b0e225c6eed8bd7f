"""Adapters as folders that programs read which know nothing of Lorry.

:mod:`~lorry_components.export.merging` puts base and adapter into one model that plain transformers loads.
:mod:`~lorry_components.export.hub_export` lays an adapter into a folder as the hub's conventions want it.
"""
