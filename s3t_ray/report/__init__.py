"""A run, or an experiment, as one HTML page that needs nothing else: facts, charts, tables, and CSV files beside it."""
