"""One experiment per file: `run(points, scene)` measures its points, the most valuable first."""
