"""The methods that PEFT implements."""
