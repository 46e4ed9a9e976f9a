"""The documentation site: ``make docs`` builds it into ``docs/_build/html``."""

import os
import re
import warnings
from pathlib import Path

import matplotlib as mpl
from docutils import nodes

import skmoe

HERE = Path(__file__).parent

project = "skmoe"
author = "The skmoe developers"
project_copyright = "The skmoe developers, BSD-3-Clause"
version = release = skmoe.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "matplotlib.sphinxext.plot_directive",
]
templates_path = ["_templates"]
default_role = "py:obj"  # single backticks: code, with a link where there is a page
exclude_patterns = ["_build", "examples", "gallery/*.ipynb"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

# Pages in Markdown. Examples in them are doctests, which the test suite runs.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# The reference: every public name of a module, and so those that are new.
autosummary_generate = True
autosummary_ignore_module_all = False
toc_object_entries_show_parents = "hide"
autodoc_inherit_docstrings = False  # what torch says about a method is not about ours
autodoc_typehints = "none"  # docstrings say it
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# The gallery: each example is run when the site is built, and a broken one breaks the build.
sphinx_gallery_conf = {
    "examples_dirs": str(HERE / "examples"),
    "gallery_dirs": "gallery",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "capture_repr": (),
    "remove_config_comments": True,
}

# Estimators that are shown in the gallery link to pages of this site.
os.environ["SKMOE_DOCS"] = ".."

# Figures of measurements are drawn from the fits in benchmarks/results.
plot_html_show_source_link = False
plot_html_show_formats = False
plot_formats = [("svg", 100)]
plot_basedir = str(HERE)

mpl.use("agg")
warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")

html_theme = "pydata_sphinx_theme"
html_title = "skmoe"
html_logo = html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
NO_SECTION = (
    "index",
    "choosing",
    "comparison",
    "install",
    "reliability",
    "security",
    "scaling",
)
html_sidebars = {page: [] for page in (*NO_SECTION, "extend", "glossary", "search", "genindex")}
html_theme_options = {
    "logo": {"text": "skmoe"},
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": False,
    "header_links_before_dropdown": 5,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True


def without_last_line(_, doctree) -> None:
    """Examples in Markdown end in an empty line, for doctest; pages need none."""
    for block in doctree.findall(nodes.literal_block):
        text = block.astext().rstrip()
        block.rawsource, block[:] = text, [nodes.Text(text)]


def with_whole_ranges(_, doctree) -> None:
    """In tables, lines break before a range such as [0.1, 0.2], not inside it."""
    for entry in doctree.findall(nodes.entry):
        for text in list(entry.findall(nodes.Text)):
            joined = re.sub(
                r"\[[^\]]*\]", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text
            )
            text.parent.replace(text, nodes.Text(joined))


def with_plain_shapes(_, what, name, obj, options, lines) -> None:
    """The underscore of (n_features_in_,) makes no link."""
    lines[:] = [line.replace("(n_features_in_,", r"(n_features_in\_,") for line in lines]


def setup(app) -> None:
    app.connect("autodoc-process-docstring", with_plain_shapes)
    app.connect("doctree-read", without_last_line)
    app.connect("doctree-read", with_whole_ranges)
