"""The data that a run is begun with: read in, summed up, set aside where it is malformed, and compared later."""
