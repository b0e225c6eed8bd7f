"""Addresses of MLflow's pages, as a browser opens them."""

# Without it, MLflow 3 shows an experiment's traces of chats, and hides the trainings behind a menu.
_TRAININGS = "workflowType=machine_learning"
LOCAL_ADDRESS = "http://127.0.0.1:5000"


def is_server(address: str) -> bool:
    """Return whether a tracking address is that of a server, whose pages a browser can open."""
    return address.startswith(("http://", "https://"))


def locate_run(address: str, experiment: str, run: str) -> str:
    """Return the address of a run's page.

    Args:
        address: The server's, without a user and a password.
        experiment: MLflow's id of the experiment.
        run: MLflow's id of the run.
    """
    return f"{address.rstrip('/')}/#/experiments/{experiment}/runs/{run}"


def locate_trainings(address: str, experiment: str) -> str:
    """Return the address of the page that lists the trainings of an experiment.

    Args:
        address: The server's, without a user and a password.
        experiment: MLflow's id of the experiment.
    """
    return f"{address.rstrip('/')}/#/experiments/{experiment}/runs?{_TRAININGS}"
