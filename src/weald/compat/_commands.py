"""The commands `weald install-gevent` and `weald uninstall-gevent`.

Called by: weald/__main__.py.
"""

import click

__all__ = ["ALL"]


@click.command()
def install_gevent() -> None:
    """Make `import gevent`, pip and dependants find weald in this environment.

    Programs that use gevent, such as `celery -A proj worker -P gevent`, then run on weald without a change.
    """
    from weald.compat._distribution import VERSION, DistributionError, install

    try:
        folder = install()
    except DistributionError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"gevent {VERSION} is in {folder}: import gevent gives weald there")


@click.command()
def uninstall_gevent() -> None:
    """Undo install-gevent; `pip uninstall gevent` does the same."""
    from weald.compat._distribution import DistributionError, uninstall

    try:
        folders = uninstall()
    except DistributionError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"removed from {', '.join(map(str, folders))}")


ALL = (install_gevent, uninstall_gevent)
