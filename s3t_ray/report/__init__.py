"""A run, or an experiment, as one self-contained HTML page: facts, charts, tables, with CSV files next to it."""
