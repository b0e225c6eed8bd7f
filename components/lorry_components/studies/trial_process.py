"""One trial in a process of its own: ``python -m lorry_components.studies.trial_process FOLDER``.

It has its own process so that its peak memory can be measured, a crash stops nothing else, and processors can
be divided. If its standard input is a pipe, it ends when that closes: the process that started it is gone.
"""

import logging
import os
import sys
from pathlib import Path

from lorry_components.process_setup import (
    conceal_secrets,
    ease_garbage_collection,
    leave_process,
    quiet_libraries,
)
from lorry_components.progress import ProgressFile
from lorry_components.steps.runtime.outcomes import describe_failure
from lorry_components.studies.trials import TrialFolder
from lorry_components.watchdog import follow_starter
from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.settings import Settings

PROGRESS_NAME = "progress.json"
STEP = "cell"
_LOGGER = logging.getLogger(__name__)


def main(path: Path) -> int:
    """Run the trial of a folder; return the exit code."""
    follow_starter()
    quiet_libraries()
    ease_garbage_collection()
    secrets = conceal_secrets(os.environ)
    from lorry_components.studies.trial_run import run_trial
    from lorry_components.training.probe.feature_cache import FeatureCache

    folder = TrialFolder(path)
    progress = ProgressFile(path / PROGRESS_NAME, STEP)
    progress(0, 0)
    try:
        settings = Settings.load(os.environ, Path.cwd())
        run_trial(
            folder,
            progress=progress,
            digest=DigestCache(settings.digests).digest_file,
            bases=settings.base_place,
            features=FeatureCache(settings.features, limit=settings.cache_bytes),
        )
    except Exception as error:
        # The traceback is scrubbed when the record is made.
        _LOGGER.exception("the trial failed")
        failure = describe_failure(error, STEP, secrets=secrets)
        folder.write_failure(failure)
        return failure.exit_code
    return 0


if __name__ == "__main__":
    leave_process(main(Path(sys.argv[1])))
