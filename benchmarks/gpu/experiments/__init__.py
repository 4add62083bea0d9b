"""One question to the card a file: `run(points, scene)` measures its points, the most valuable first."""
