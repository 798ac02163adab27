"""Hooks of mkdocs: pages that stand outside docs/, with links that work in both places."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
RESULTS = "benchmarks/results/*"
FETCHED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?=[\"']?(?:https?:)?//[^>]*>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages at the top of the repository, and the tables and plots of the benchmarks."""
    for path in [*(ROOT / page for page in PAGES), *sorted(ROOT.glob(RESULTS))]:
        files.append(File.generated(config, str(path.relative_to(ROOT)), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """On the site docs/ is the top, and what stands beside it in the repository is within."""
    return markdown.replace("](../", "](").replace("](docs/", "](")


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Raise PluginError where a page would fetch a font, script or picture from elsewhere."""
    if found := FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri} fetches from elsewhere: {found[0]}; bring it here")
    return output
