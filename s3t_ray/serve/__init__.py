"""HTTP: tokens, requests, answers, and the Ray Serve application. Computes nothing."""
