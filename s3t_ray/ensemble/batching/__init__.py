"""Many generations in one forward pass: what a step computes, its rows, caches, sampling and what they say."""
