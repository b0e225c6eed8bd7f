"""The methods that train soft tokens, or the keys and values of such tokens.

``base`` has what they share, and ``insertion`` puts soft tokens into the body of a base, below any head.
``prompt_tuning`` learns them directly, ``p_tuning`` through a small encoder and anywhere between words,
``p_tuning_v2`` learns their keys and values in every layer.
"""
