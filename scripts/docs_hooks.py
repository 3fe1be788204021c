"""Hooks of the documentation's site: pages that do not lie in ``docs``, and links to them.

Links in the Markdown files are those of the repository, so that they work where it is read. README
is the site's first page; other Markdown files keep their path; any other text that is linked
becomes a page that shows it; links to folders become plain text. What is linked and not there is a
warning, with which ``mkdocs build --strict`` fails.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
README, DOCS, FILES = 'README.md', 'docs/', 'files/'
EXTRA = (README, 'CHANGELOG.md', 'CONTRIBUTING.md', 'LICENSE')
"""Files of the root that are pages."""

LANGUAGES = {'.py': 'python', '.yaml': 'yaml', '.yml': 'yaml', '.xml': 'xml', '.sh': 'bash'}
TOKEN = re.compile(
    r'^ *```.*?^ *```[^\n]*$'  # code, in which links are none
    r'|(?P<picture>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<link>[^)\s]+)\)'
    r'|`[^`\n]+`',
    re.MULTILINE | re.DOTALL,
)

ROLE = re.compile(r':(?:class|func|meth|mod|attr|data):<code>(?:~[\w.]*\.)?([\w.]+)</code>')

log = logging.getLogger('mkdocs.hooks.docs')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that do not lie in ``docs``."""
    cards = (ROOT / 'src').glob('*/msfc/zoo/*/MODEL_CARD.md')
    outside = {*EXTRA, *(str(card.relative_to(ROOT)) for card in cards)}
    inside = {DOCS + file.src_uri for file in files.documentation_pages()}
    for path in sorted(outside | inside):
        text = (ROOT / path).read_text(encoding='utf-8')
        targets = (_target(path, found['link'] or '') for found in TOKEN.finditer(text))
        outside |= {target for target in targets if target and (ROOT / target).is_file()}
    for path in sorted(outside):
        if not path.startswith(DOCS):
            files.append(_generated(path, config))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Write links for the site, and the command line's documentation."""
    uri = page.file.src_uri
    if uri.startswith(FILES):
        return markdown
    text = TOKEN.sub(lambda found: _link(_path(uri), uri, found), markdown)
    return text.replace('<!-- msfc --help -->', _command_line()) if uri == 'cli.md' else text


def on_page_content(html: str, page: Page, **_: object) -> str:
    """Show Sphinx's roles in docstrings as names: :class:`~a.b.C` is C."""
    if page.file.src_uri != 'api.md':
        return html
    return ROLE.sub(r'<code>\1</code>', html)


def _generated(path: str, config: MkDocsConfig) -> File:
    """Return the site's file for a file outside of ``docs``."""
    if path.endswith('.md'):
        text = (ROOT / path).read_text(encoding='utf-8')
        return File.generated(config, _uri(path), content=text)
    try:
        text = (ROOT / path).read_text(encoding='utf-8').rstrip()
    except UnicodeDecodeError:
        return File.generated(config, _uri(path), abs_src_path=str(ROOT / path))
    language = LANGUAGES.get(Path(path).suffix, 'text')
    text = f'# {Path(path).name}\n\n`{path}`\n\n~~~~~ {language}\n{text}\n~~~~~\n'
    return File.generated(config, _uri(path), content=text)


def _uri(path: str) -> str:
    """Return where a file of the repository is in the site's sources."""
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    if path == README:
        return 'index.md'
    pictures = ('.png', '.jpg', '.svg', '.gif', '.webp', '.md')
    return path if path.endswith(pictures) else f'{FILES}{path}.md'


def _path(uri: str) -> str:
    """Return what file of the repository is at a place in the site's sources."""
    if uri == 'index.md':
        return README
    return uri if (ROOT / uri).is_file() else DOCS + uri


def _target(path: str, link: str) -> str | None:
    """Return the file or folder that a link in a file is to; None: it is not of the repository."""
    link = link.partition('#')[0]
    if not link or '://' in link or link.startswith('mailto:'):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def _link(path: str, uri: str, found: re.Match[str]) -> str:
    """Return a link as the site needs it."""
    picture, text, link = found['picture'], found['text'], found['link']
    target = _target(path, link or '')
    if target is None:
        return found[0]
    if not (ROOT / target).exists():
        log.warning("%s: no file is at the link '%s'", path, link)
        return found[0]
    if (ROOT / target).is_dir():
        return str(text)
    _, hash_sign, anchor = link.partition('#')
    there = posixpath.relpath(_uri(target), posixpath.dirname(uri) or '.')
    return f'{picture}[{text}]({there}{hash_sign}{anchor})'


def _command_line() -> str:
    """Return the documentation of the command ``msfc``, made from its code by typer."""
    import typer
    from typer.cli import get_docs_for_click

    from msfc.cli.main import app

    command = typer.main.get_command(app)
    context = typer.Context(command, info_name='msfc')
    return get_docs_for_click(obj=command, ctx=context, indent=1, name='msfc')
