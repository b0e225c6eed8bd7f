"""The servers that Lorry works with, as plain processes of one machine: S3, PostgreSQL, MLflow.

Everything lies in one folder, listens on the loopback alone, and has passwords that were generated for it.
``python -m lorry_stack`` (``make stack``) is the command, in :mod:`~lorry_stack.__main__`.

:mod:`~lorry_stack.stack` starts and stops the three servers, each in the module of its name:
:mod:`~lorry_stack.seaweedfs`, :mod:`~lorry_stack.postgresql`, :mod:`~lorry_stack.mlflow_server`.
:mod:`~lorry_stack.stack_layout` says what lies where, :mod:`~lorry_stack.options` what was chosen,
:mod:`~lorry_stack.credentials` makes the passwords, :mod:`~lorry_stack.ports` finds ports, and
:mod:`~lorry_stack.processes` knows the processes that were started, and ends no others.
The same servers in containers are ``infra/stack/compose.yaml``, whose passwords
:mod:`~lorry_stack.compose_variables` writes.
"""
