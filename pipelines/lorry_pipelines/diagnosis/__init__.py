r"""What ``lorry doctor`` looks at: settings, store, MLflow, libraries, this machine.

Each check returns :class:`~lorry_pipelines.diagnosis.findings.Finding`\ s, leaves nothing behind, and needs
no optional library: one that is missing is a finding. :mod:`~lorry_pipelines.diagnosis.running` runs them at
once, each with a time limit.
"""

from lorry_pipelines.diagnosis.findings import Finding
from lorry_pipelines.diagnosis.running import Check, run_checks

__all__ = ["Check", "Finding", "run_checks"]
