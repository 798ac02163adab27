"""What the backbones look at: log-mel frames, computed once each as the sound streams in."""
