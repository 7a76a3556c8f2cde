"""How the documentation is built: `nox -s docs`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import reference_pages

project = "flowopt"
author = "the flowopt developers"
root_doc = "index"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery"]
html_theme = "furo"
html_title = "flowopt"

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "abort_on_example_error": True,
    "show_memory": False,
    "min_reported_time": 60,
    "download_all_examples": False,
    "show_signature": False,
}


def _plain(app, what, name, thing, options, lines):
    """Norms and shapes in docstrings are no markup: |θ|², (*batch, dim)."""
    lines[:] = [line.replace("|", r"\|").replace("*", r"\*") for line in lines]


def setup(app):
    """Writes the pages that the registry holds."""
    reference_pages.write(Path(app.srcdir) / "reference")
    app.connect("autodoc-process-docstring", _plain, priority=400)
