"""Addresses of MLflow's pages, as a browser opens them."""

from dataclasses import dataclass

# Without it, MLflow 3 shows an experiment's traces of chats, and hides the trainings behind a menu.
_TRAININGS = "workflowType=machine_learning"
LOCAL_ADDRESS = "http://127.0.0.1:5000"


@dataclass(frozen=True, slots=True)
class TrainingsPage:
    """The page that lists the trainings of a task.

    Attributes:
        experiment: MLflow's id of the experiment.
        view: The key of the view that shows results and recipes; empty: the experiment has none.
    """

    experiment: str
    view: str = ""


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


def locate_trainings(address: str, page: TrainingsPage) -> str:
    """Return the address of the page that lists the trainings of an experiment.

    Args:
        address: The server's, without a user and a password.
        page: The experiment, and the view that it is shown in.
    """
    view = f"&viewStateShareKey={page.view}" if page.view else ""
    return f"{address.rstrip('/')}/#/experiments/{page.experiment}/runs?{_TRAININGS}{view}"
