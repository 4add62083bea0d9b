"""Redraws the pictures of the docs from the saved results, after a change in how charts look.

python benchmarks/redraw_claims.py
"""

from __future__ import annotations

from benchlib.experiment_file import PICTURES, RESULTS, picture

from s3t_ray.report.experiment_folder import experiment_page


def main() -> None:
    for chart in experiment_page(RESULTS).charts():
        (PICTURES / f"{chart.stem}.svg").write_text(picture(chart) + "\n")
        print(f"{chart.stem}.svg")


if __name__ == "__main__":
    main()
