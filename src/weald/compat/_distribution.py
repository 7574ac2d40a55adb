"""The distribution `gevent`: weald under that name, for pip, for dependants and for programs that import gevent first.

Called by: _commands.py; tests/third_party/environment.py.

Invariants:
- It is a package of one module, with the metadata that pip writes for any other: pip lists it, accepts it where
  `gevent>=...` is required, and can remove it.
- A gevent that is not weald's is neither replaced nor shadowed nor removed.
"""

import base64
import hashlib
import shutil
import sys
import sysconfig
from importlib.machinery import PathFinder
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path

from weald.compat._door import GEVENT_VERSION

__all__ = ["DistributionError", "VERSION", "install", "uninstall", "write"]

MARK = "+weald"  # the version's local part distinguishes this distribution from gevent's own
VERSION = GEVENT_VERSION + MARK
# The extras of gevent's own distribution, so that `gevent[recommended]` is satisfied without a warning.
EXTRAS = ("dnspython", "docs", "events", "monitor", "recommended", "test")

MODULE = '''\
"""The name `gevent`, served by weald: importing it puts weald in its place."""

import sys

try:
    import weald
except ModuleNotFoundError as error:
    if error.name != "weald":
        raise
    raise ModuleNotFoundError(
        "weald serves gevent here and is not installed: pip install weald, or pip uninstall gevent", name="weald"
    ) from None

__weald__ = True  # tells install_as_gevent that this is not the real gevent

weald.install_as_gevent()
sys.modules.pop(__name__, None)
import gevent  # noqa: E402, F401  (weald from now on)
'''


class DistributionError(Exception):
    """The distribution cannot be installed or removed; the text says why and what to do."""


def install(site: Path | None = None) -> Path:
    """Write the distribution into the folder `site`, by default the site-packages that has weald.

    Returns the folder.  An older one of weald's there is replaced.  Raises DistributionError if a gevent that is not
    weald's is there to be imported, or if the folder cannot be written.
    """
    for present in distributions(name="gevent"):
        if not _ours(present):
            raise DistributionError(
                f"gevent {present.version} is installed in {present.locate_file('')}, and weald does not replace it: "
                "pip uninstall gevent, then weald install-gevent"
            )
    if site is None:
        site = _site_packages()
    module = PathFinder.find_spec("gevent")
    if module is not None and module.origin is not None and "__weald__" not in _text(module.origin):
        raise DistributionError(
            f"a package gevent that is not weald's lies in {module.origin}: remove it, then weald install-gevent"
        )
    try:
        for present in distributions(name="gevent"):
            if _folder(present).resolve() == site.resolve():
                _remove(present)
        write(site, requires_weald=_installed_weald() is not None)
    except OSError as error:
        raise DistributionError(f"gevent's name cannot be written into {site}: {error}") from None
    return site


def uninstall() -> list[Path]:
    """Remove the distribution from wherever it is on sys.path, and return the folders that had it.

    In a virtual environment that sees the packages of the interpreter beneath, these stay.  Raises DistributionError if
    there is none, only one that is not weald's, or one that cannot be removed.
    """
    folders = []
    for present in distributions(name="gevent"):
        folder = _folder(present)
        if not _ours(present):
            raise DistributionError(f"gevent {present.version} in {folder} is not weald's: pip uninstall gevent")
        if _is_beneath(folder):
            continue
        try:
            _remove(present)
        except OSError as error:
            raise DistributionError(f"gevent's name cannot be removed from {folder}: {error}") from None
        folders.append(folder)
    if not folders:
        raise DistributionError("weald's gevent is not installed here")
    return folders


def _remove(present: Distribution) -> None:
    folder = _folder(present)
    shutil.rmtree(folder / "gevent", ignore_errors=True)
    # Last, so that an interruption leaves what can be removed again.
    shutil.rmtree(folder / f"gevent-{present.version}.dist-info")


def write(site: Path, *, requires_weald: bool = True) -> None:
    """Write the distribution's files into `site`, whatever is there.

    Without `requires_weald` it names no dependency: pip would miss a weald that runs from a checkout.
    """
    info = f"gevent-{VERSION}.dist-info"
    metadata = [
        "Metadata-Version: 2.4",
        "Name: gevent",
        f"Version: {VERSION}",
        "Summary: The name gevent, served by weald",
        "Requires-Python: >=3.11",
        *(["Requires-Dist: weald"] if requires_weald else []),
        *(f"Provides-Extra: {extra}" for extra in EXTRAS),
    ]
    files = {
        "gevent/__init__.py": MODULE,
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: weald\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/INSTALLER": "weald\n",
        f"{info}/REQUESTED": "",
        f"{info}/top_level.txt": "gevent\n",
    }
    record = []
    for name, text in files.items():
        content = text.encode()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(content)}\n")
    files[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"])
    for name, text in files.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")


def _ours(present: Distribution) -> bool:
    return present.version.endswith(MARK)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _installed_weald() -> Distribution | None:
    try:
        return distribution("weald")
    except PackageNotFoundError:
        return None


def _site_packages() -> Path:
    """Where weald is installed, or else the interpreter's own site-packages.

    The latter for a checkout that is merely on the path (an egg-info in src/ is no place to install into), and in a
    virtual environment for a weald of the interpreter beneath.
    """
    installed = _installed_weald()
    own = Path(sysconfig.get_path("purelib"))
    if installed is None:
        return own
    folder = _folder(installed)
    is_a_place = folder.name in ("site-packages", "dist-packages") or installed.read_text("WHEEL") is not None
    return folder if is_a_place and not _is_beneath(folder) else own


def _folder(present: Distribution) -> Path:
    return Path(str(present.locate_file("")))


def _is_beneath(folder: Path) -> bool:
    """Return whether the folder belongs to the interpreter that this virtual environment was made of."""
    return (
        sys.prefix != sys.base_prefix
        and folder.is_relative_to(sys.base_prefix)
        and not folder.is_relative_to(sys.prefix)
    )
