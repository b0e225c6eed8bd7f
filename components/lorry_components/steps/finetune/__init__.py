"""Fine-tuning: prepared data and a frozen base in, an adapter folder out."""
