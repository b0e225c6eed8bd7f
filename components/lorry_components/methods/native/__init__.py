"""The methods that are implemented here, without PEFT."""
