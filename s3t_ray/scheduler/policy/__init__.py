"""What a run must do next, decided from frozen values alone."""
