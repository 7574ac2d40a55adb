"""The TLS of `weald serve`: certificates by name, clients' certificates, versions, ciphers.

Called by: supervisor.py, worker.py.

Files are read when a worker starts, so a renewed certificate is used from the next reload on.
"""

import ssl
from typing import Any

from weald.serve.config import Config
from weald.serve.errors import ConfigError

__all__ = ["tls_context"]

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def tls_context(config: Config, http2: bool = False) -> ssl.SSLContext | None:
    """The context for `config`, None if that asks for no TLS; with `http2` it offers HTTP/2.  Raises ConfigError."""
    if not config.certfile:
        return None
    context = _context(config, config.certfile, config.keyfile, http2)
    if config.sni:
        by_name: dict[str, ssl.SSLContext] = {}
        for setting in config.sni:
            name, _, files = setting.partition("=")
            certfile, _, keyfile = files.partition(":")
            if not name or not certfile:
                raise ConfigError(f"--sni needs NAME=CERTFILE or NAME=CERTFILE:KEYFILE, not {setting!r}")
            by_name[name.lower()] = _context(config, certfile, keyfile or None, http2)

        def choose(sock: Any, asked: str | None, _: Any) -> None:
            name = (asked or "").lower()
            found = by_name.get(name) or by_name.get("*." + name.partition(".")[2])
            if found is not None:
                sock.context = found

        context.sni_callback = choose
    return context


def _context(config: Config, certfile: str, keyfile: str | None, http2: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[config.tls_min]
    try:
        if config.ciphers:
            context.set_ciphers(config.ciphers)
    except ssl.SSLError:
        raise ConfigError(f"--ciphers: OpenSSL knows none of {config.ciphers}") from None
    try:
        context.load_cert_chain(certfile, keyfile, lambda: _password(config, keyfile or certfile))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the certificate {certfile} and its key cannot be used: {error}") from None
    if config.client_ca:
        try:
            context.load_verify_locations(config.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"the authorities of {config.client_ca} cannot be used: {error}") from None
        context.verify_mode = ssl.CERT_REQUIRED if config.client_cert == "required" else ssl.CERT_OPTIONAL
    if http2:
        context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def _password(config: Config, keyfile: str) -> str:
    """The key's password: read only if the key has one.  Raises ConfigError, instead of a prompt."""
    if not config.key_password_file:
        raise ConfigError(f"the key {keyfile} has a password: give it in --key-password-file")
    try:
        with open(config.key_password_file) as file:
            return file.readline().rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"cannot read {config.key_password_file}: {error.strerror}") from None
