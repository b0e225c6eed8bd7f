"""Where data comes from: local disk, S3, the Hugging Face hub."""
