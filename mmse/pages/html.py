"""Pages from templates of the package: self-contained HTML, and Markdown."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from mmse.utils.files import write_text


def write_page(
    path: Path,
    package: str,
    values: Mapping[str, Any],
    filters: Mapping[str, Callable[..., str]] = {},
) -> None:
    """Fill the template that is named after a file, and write the file.

    Args:
        path: The file; ``report.html`` is made from ``report.html.jinja``, with its values escaped.
        package: The package whose folder ``templates`` has the template, which may extend
            ``base.html.jinja`` of this one.
        values: The variables of the template.
        filters: Filters that it uses besides Jinja's.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader('mmse.pages')]),
        autoescape=path.suffix == '.html',
        undefined=StrictUndefined,
    )
    environment.filters.update(filters)
    text = environment.get_template(f'{path.name}.jinja').render(values)
    write_text(path, text.rstrip() + '\n')
