"""Continuous batching: many generations per forward pass, with their scheduling, caches, sampling and events."""
