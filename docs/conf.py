"""The documentation as a site: `make docs` builds it into build/docs, offline."""

from importlib.metadata import version as installed_version

project = "s3t_ray"
author = "The s3t_ray authors"
project_copyright = "2026, the s3t_ray authors"
release = version = installed_version("s3t-ray")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns: list[str] = []
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
# Links that lead out of docs/ (to README.md, cluster/, benchmarks/) are for readers of the repository.
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "show-inheritance": False}

html_theme = "furo"
html_title = f"s3t_ray {release}"
html_show_sourcelink = False
