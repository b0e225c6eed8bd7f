"""The methods that give the base soft tokens."""
