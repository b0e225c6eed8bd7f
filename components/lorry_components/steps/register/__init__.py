"""Registration: the store, then the ledger, then MLflow."""
