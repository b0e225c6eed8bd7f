"""The variables that ``infra/stack/compose.yaml`` asks for."""

from lorry_stack.credentials import Credentials


def format_compose_variables(credentials: Credentials) -> str:
    """Return the lines of a file for ``--env-file``."""
    variables = {
        "STACK_S3_KEY": credentials.s3_key,
        "STACK_S3_SECRET": credentials.s3_secret,
        "STACK_POSTGRESQL_PASSWORD": credentials.postgresql,
        "STACK_MLFLOW_PASSWORD": credentials.mlflow_admin,
        "STACK_MLFLOW_SESSION": credentials.mlflow_session,
    }
    return "".join(f"{name}={value}\n" for name, value in variables.items())
