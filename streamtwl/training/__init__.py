"""Behind the extra `train`: what is learned from labelled streams, and how it becomes a file."""
