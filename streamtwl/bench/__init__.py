"""Research, behind the extra `train`: pre-training, baselines, training with every switch."""
