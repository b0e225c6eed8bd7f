"""The linear probe: a linear model on the features of the frozen base, which every training is compared with.

``frozen_features`` and ``adapted_features`` compute one vector for each text, kept by ``feature_cache``;
``head_fitting`` fits a linear model to them, ``linear_probe`` evaluates it, and ``probe_fallback`` keeps it
where training did not improve on it.
"""
