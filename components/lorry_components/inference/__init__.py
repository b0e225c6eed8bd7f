"""One way to load an adapter on its base and to predict, for every reader there is."""

from lorry_components.inference.loading import LoadedAdapter, assemble_adapter, load_adapter
from lorry_components.inference.predictor import Predictor

__all__ = ["LoadedAdapter", "Predictor", "assemble_adapter", "load_adapter"]
