"""Sphinx: Furo, MyST notebooks executed at build, the interface from docstrings."""

import importlib.metadata
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without widgets there is a plain bar; the notebooks that are executed need no word about it.
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")
sys.path.insert(0, str(Path(__file__).parent))

import framework

project = "cm2"
author = "cm2 contributors"
copyright = "2026, cm2 contributors"
release = version = importlib.metadata.version("cm2")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
templates_path = ["_templates"]

myst_enable_extensions = ["amsmath", "dollarmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove-warn"  # a cell that warns fails the build

autosummary_generate = True
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "signature"
suppress_warnings = ["ref.python"]  # a class is documented in its module and its package
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "cm2"
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0072B2",
        "color-brand-content": "#0072B2",
        "code-font-size": "var(--font-size--small--3)",  # 96 columns of code fit into a page
    },
    "dark_css_variables": {"color-brand-primary": "#56B4E9", "color-brand-content": "#56B4E9"},
}


def skip_generated(app, what, name, obj, skip, options):
    """Leaves out the routing methods that scikit-learn adds to every estimator."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", skip_generated)
    framework.draw(Path(app.srcdir) / "generated" / "framework.svg")
