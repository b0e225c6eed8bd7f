"""The methods that need no PEFT."""
