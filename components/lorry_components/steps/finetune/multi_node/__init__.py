"""Fine-tuning on several machines: a TrainJob of Kubeflow Trainer, its pods, and what passes between them."""
