"""gevent._config: the settings, which are weald's; `python -m weald._config` lists them.

Called by: users, as gevent._config.
"""

from typing import TYPE_CHECKING, Any

from weald._base.config import Config, as_bool, config
from weald._base.names import more_names

__all__ = ["Config", "config", "validate_bool"]


def validate_bool(value: Any) -> bool:
    """Return the text of an environment variable as a bool.  Raises ValueError if it is neither."""
    return as_bool(value)


if not TYPE_CHECKING:
    __getattr__ = more_names("weald._config")

if __name__ == "__main__":
    config.print_help()
