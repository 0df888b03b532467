"""The documentation site: `make docs` builds it into build/docs, with warnings as errors."""

import os
import re

import nbclient

import ftp_cl

os.environ["TTY_COMPATIBLE"] = "0"  # a kernel is no terminal: no progress bars in the tutorials

# To fill in once the repository is public, with a slash at its end: links to files outside docs/ then lead there.
REPOSITORY = ""

project = "ftp_cl"
author = "The ftp_cl authors"
copyright = author
version = release = ftp_cl.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nbclient.NotebookClient.coalesce_streams = True  # myst_nb alone breaks lines where output came in parts
nb_output_stderr = "remove"
suppress_warnings = ["mystnb.unknown_mime_type"]

napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
default_role = "code"

html_theme = "furo"
html_title = "ftp_cl"
html_static_path = ["_static"]
html_css_files = ["site.css"]
exclude_patterns = ["requirements.txt"]


def link_outside(app, name, source):
    """Files outside docs/ are no pages of the site: link to the repository, or leave the text alone."""
    link = rf"[\1]({REPOSITORY}\2)" if REPOSITORY else r"\1"
    outside = re.escape("../" * (name.count("/") + 1))
    source[0] = re.sub(rf"(?<!!)\[([^\]]+)\]\({outside}(?!\.\.)([^)]+)\)", link, source[0])


def mark_code(app, what, name, obj, options, lines):
    """An indented block below a paragraph of a docstring is code; reStructuredText takes it for a quotation."""
    for i in range(len(lines) - 1, 1, -1):
        before = next((line for line in reversed(lines[:i]) if line), "    ")
        if lines[i].startswith("    ") and not lines[i - 1] and re.match(r"\w(?!.*::$)", before):
            lines[i:i] = ["::", ""]


def setup(app):
    """Register what stands above."""
    app.connect("source-read", link_outside)
    app.connect("autodoc-process-docstring", mark_code, priority=400)  # before napoleon
