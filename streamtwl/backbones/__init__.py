"""Frozen audio classifiers: a window of features in, a posterior over sound categories out."""
