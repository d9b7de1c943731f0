"""The documentation as a site: ``tox run -e docs`` builds it into docs/_build."""

import isometry

project = "Isometry"
author = "the Isometry authors"
release = isometry.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the numpydoc sections say them with their shapes
napoleon_google_docstring = False
default_role = "code"  # `name` in a docstring is the name, not a reference
html_theme = "furo"
html_title = f"Isometry {release}"
