"""The methods that train soft tokens, or the keys and values of such tokens."""
