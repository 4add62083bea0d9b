"""Show how many deletions a run survives with each budget, and how many stages that takes. Trains nothing.

    python examples/choose_a_budget.py --shards 5 --slices 4

A run is dead when every sequence of every shard has lost its first slice. With cyclic orders and uniform deletions, the
expected number of deletions until then is m L H(m min(B, L)): m shards, L slices, budget B, H the harmonic numbers.
"""

from __future__ import annotations

import argparse

from s3t_ray.plan.forecast import expected_deletions


def table(shards: int, slices: int) -> list[tuple[int, float, int]]:
    """(budget, expected deletions, stages trained) for every budget up to the number of slices."""
    return [
        (budget, expected_deletions(shards, slices, budget), shards * budget * slices)
        for budget in range(1, slices + 1)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shards", type=int, default=5)
    parser.add_argument("--slices", type=int, default=4)
    asked = parser.parse_args()
    print("budget  deletions survived  stages trained (at most)")
    for budget, deletions, stages in table(asked.shards, asked.slices):
        print(f"{budget:6}  {deletions:15.1f}  {stages:14}")


if __name__ == "__main__":
    main()
