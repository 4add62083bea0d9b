"""Reports on a run or an experiment as one self-contained HTML page with facts, charts and tables, and CSV files."""
