"""``lorry listen``: events from outside become requests to retrain, each of them once.

:mod:`~lorry_pipelines.listening.signatures` says whether a delivery is from somebody who knows the secret,
:mod:`~lorry_pipelines.listening.events` which tasks it concerns,
:mod:`~lorry_pipelines.listening.requests` keeps requests in the store,
:mod:`~lorry_pipelines.listening.worker` carries them out one after the other, and
:mod:`~lorry_pipelines.listening.application` is the server around them.
"""
