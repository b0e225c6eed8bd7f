"""One way to load an adapter on its base and to predict, which every reader uses.

:mod:`~lorry_components.inference.loading` goes from a verified adapter folder to a model that is proven to be
the registered one: its outputs on fixed inputs (:mod:`~lorry_components.inference.recorded_outputs`) are
those recorded at registration. :mod:`~lorry_components.inference.predictor` predicts with it. ``evaluate``
and ``lorry predict`` call these, and so does :mod:`~lorry_components.inference.mlflow_flavor`, the model that
plain MLflow loads; its module name is recorded in registered models and never changes.
"""

from lorry_components.inference.loading import LoadedAdapter, assemble_adapter, load_adapter
from lorry_components.inference.predictor import Predictor

__all__ = ["LoadedAdapter", "Predictor", "assemble_adapter", "load_adapter"]
