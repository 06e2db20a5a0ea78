"""The guide, built by ``make docs``: Sphinx with MyST, so that a page is Markdown that reads well without it too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pygments.lexers.special import TextLexer

import spaceblock

if TYPE_CHECKING:
    from docutils.nodes import Element
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "Spaceblock"
copyright = "the Spaceblock contributors"
version = release = spaceblock.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(asyncio|collections|os|typing|numpy|rich)\..*"),  # other people's pages
    ("py:attr", r"Options\.[a-z_]+"),  # fields, which the class describes together
    ("py:class", r"(spaceblock\.trust\.tickets\.)?Ticket"),  # a ticket is given as a string
    ("py:.*", r"[A-Z][A-Za-z]*Error|[a-z]+|Any|Sequence|Mapping|Callable|AsyncIterator|Enum|PathLike|_T"),
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
myst_fence_as_directive: list[str] = []

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autoclass_content = "class"
add_module_names = False
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"Spaceblock {version}"
html_show_copyright = False
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp, .go"

linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]


def setup(app: Sphinx) -> None:
    """Print hex dumps as they are, find names as the package exports them, and list the errors in the tree's order."""
    app.add_lexer("hex", TextLexer)
    app.connect("missing-reference", _exported)
    folder = Path(app.srcdir) / "_build"
    folder.mkdir(exist_ok=True)
    lines = (f".. autoexception:: spaceblock.{kind.__name__}()\n   :show-inheritance:\n" for kind in _errors())
    (folder / "errors.rst").write_text("\n".join(lines))


def _exported(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element) -> Element | None:
    """Docstrings call things by the names that they have where they are written; they are documented as exported."""
    if node.get("refdomain") != "py":
        return None
    target = "spaceblock." + node["reftarget"].removeprefix("~").rpartition("spaceblock.")[2]
    python = env.domains["py"]
    found = python.resolve_any_xref(env, node["refdoc"], app.builder, target, node, content)
    return found[0][1] if found else None


def _errors(
    kind: type[spaceblock.SpaceblockError] = spaceblock.SpaceblockError,
) -> list[type[spaceblock.SpaceblockError]]:
    public = [each for each in kind.__subclasses__() if each.__name__ in spaceblock.__all__]
    return [found for each in public for found in (each, *_errors(each))]
