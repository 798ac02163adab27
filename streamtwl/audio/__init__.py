"""Where sound comes in: sources, the ring buffer, resampling to 16 kHz mono."""
