"""Show the ledger in MLflow: runs, model versions and pages, never read as truth.

:mod:`~lorry_registry.mlflow.index` shows it, :mod:`~lorry_registry.mlflow.repair` corrects what was edited
there, and :mod:`~lorry_registry.mlflow.adoption` takes a champion over into the ledger, only on request.
"""
