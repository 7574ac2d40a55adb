"""Files of a folder as a WSGI application: `--static /prefix=DIR`.

Called by: wsgi.py; config.py (`parse_static`).

Conditional requests and ranges follow RFC 9110 (sections 13 and 14).  The server sends the files: by sendfile(2), where
there is no TLS and no HTTP/2.

Invariants:
- Nothing outside of the folder is sent.  A path has no empty, "." or ".." segment.  The target of a symbolic link is
  checked on the opened file, so it cannot be exchanged in between.
- Only regular files are sent, and no hidden ones (names that begin with a dot, except ".well-known").
"""

import email.utils
import errno
import mimetypes
import os
import re
import stat
from typing import Any, NamedTuple
from urllib.parse import quote

from weald.http.body import FileWrapper
from weald.serve.errors import ConfigError

__all__ = ["Static", "parse_static"]

_ENCODINGS = (("br", ".br"), ("gzip", ".gz"))  # best first: codings, and how compressed files' names end
# Errors of open(2) that say that there is no file for the server to send.
_NO_FILE = {
    *(errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG, errno.ENODEV, errno.ENOENT, errno.ENOTDIR, errno.ENXIO),
    *(errno.EINVAL, errno.EPERM),
}
_PIECE = 1 << 16  # bytes read at once, where there is no sendfile(2)
_range = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII | re.IGNORECASE).fullmatch
_accepted = re.compile(r"\s*([!#$%&'*+.^_`|~0-9a-z-]+)\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*)?", re.ASCII).fullmatch
_tag = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_types = mimetypes.MimeTypes()  # Python's own, without the system's files: the same everywhere
for _kind, _ending in (
    ("text/javascript", ".js"),
    ("text/javascript", ".mjs"),
    ("application/wasm", ".wasm"),
    ("font/woff2", ".woff2"),
    ("font/woff", ".woff"),
    ("image/avif", ".avif"),
    ("image/webp", ".webp"),
    ("application/manifest+json", ".webmanifest"),
    ("text/markdown", ".md"),
):
    _types.add_type(_kind, _ending)


def parse_static(setting: str) -> tuple[str, str]:
    """Prefix and folder of "/prefix=DIR".  Raises ConfigError."""
    prefix, equals, folder = setting.partition("=")
    if not equals or not folder or not re.fullmatch(r"(/[^/?#\s]+)+", prefix):
        raise ConfigError(f"--static must be like /prefix=DIR, without a slash at the prefix's end, not {setting!r}")
    return prefix, folder


class _File(NamedTuple):
    """An open file: its descriptor, its status, and its content coding ("" for none)."""

    fd: int
    stat: os.stat_result
    coding: str

    @property
    def tag(self) -> str:
        """Its ETag: another file, or another coding, has another one."""
        return f'"{self.stat.st_mtime_ns:x}-{self.stat.st_size:x}{self.coding and "-" + self.coding}"'


class _Part(FileWrapper):
    """The next `left` bytes of a file, for servers that read it; sendfile(2) goes by Content-Length."""

    def __init__(self, filelike: Any, left: int) -> None:
        super().__init__(filelike, _PIECE)
        self._left = left

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(min(self.block_size, self._left))
        if not data:
            raise StopIteration
        self._left -= len(data)
        return data


class Static:
    """Static(folder, max_age): a WSGI application that answers PATH_INFO with the file below `folder`.

    `max_age`: seconds for which a client may use its copy without asking again.
    A path that ends with a slash is the folder's index.html.  `file.br` and `file.gz`, if no older than `file`, are
    sent in its place to clients that accept them.  Raises ConfigError if there is no such folder.
    """

    def __init__(self, folder: str, max_age: int = 60) -> None:
        self.folder = os.path.abspath(folder)
        if not os.path.isdir(self.folder):
            raise ConfigError(f"--static: there is no folder {folder}")
        self._cache = f"public, max-age={max_age}" if max_age else "no-cache"

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Answer a request."""
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _say(start_response, "405 Method Not Allowed", [("Allow", "GET, HEAD")])
        path = self._path(environ["PATH_INFO"])
        found = path and self._open(path)
        if not path or not found:
            if path and os.path.isdir(path) and _inside(os.path.realpath(path), os.path.realpath(self.folder)):
                where = (environ["SCRIPT_NAME"] + environ["PATH_INFO"]).encode("latin-1")
                query = environ["QUERY_STRING"]
                to = _quoted(where) + "/" + (query and "?" + query)
                return _say(start_response, "301 Moved Permanently", [("Location", to)])
            return _say(start_response, "404 Not Found", [])
        return self._answer(environ, start_response, found, self._variants(path, environ, found))

    # ---------------------------------------------------------------- files

    def _path(self, path: str) -> str | None:
        """The file that `path` names, None for a path that names none."""
        segments = path.encode("latin-1").decode("utf-8", "surrogateescape").split("/")[1:]
        if segments and not segments[-1]:
            segments[-1] = "index.html"
        if not segments or any(
            not name or (name.startswith(".") and name != ".well-known") or "\0" in name for name in segments
        ):
            return None
        return os.path.join(self.folder, *segments)

    def _open(self, path: str, coding: str = "") -> _File | None:
        """The regular file `path`, opened, unless it is outside of the folder.

        Raises OSError if there may be such a file, for example if no descriptor is left: a client or a cache would keep
        a 404.
        """
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)  # a FIFO must not wait
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        except ValueError:
            return None
        try:
            found = os.fstat(fd)
            where = os.readlink(f"/proc/self/fd/{fd}")
            if stat.S_ISREG(found.st_mode) and _inside(where, os.path.realpath(self.folder)):
                return _File(fd, found, coding)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def _variants(self, path: str, environ: dict[str, Any], plain: _File) -> tuple[_File | None, bool]:
        """The compressed file to send, if there is one, and whether there are any."""
        there = [(coding, path + ending) for coding, ending in _ENCODINGS if os.path.exists(path + ending)]
        if not there or path.endswith((".br", ".gz")):
            return None, False
        accepted = _codings(environ.get("HTTP_ACCEPT_ENCODING", ""))
        for coding, name in there:
            if accepted.get(coding, accepted.get("*", 0.0)):
                try:
                    found = self._open(name, coding)
                except OSError:
                    continue  # the plain file is there
                if found is not None:
                    if found.stat.st_mtime_ns >= plain.stat.st_mtime_ns:
                        return found, True
                    os.close(found.fd)
        return None, True

    # ---------------------------------------------------------------- the answer

    def _answer(
        self, environ: dict[str, Any], start_response: Any, plain: _File, variants: tuple[_File | None, bool]
    ) -> Any:
        compressed, varies = variants
        file = compressed or plain
        if compressed is not None:
            os.close(plain.fd)
        body = open(file.fd, "rb")  # closed by the response
        try:
            size = file.stat.st_size
            kind, _ = _types.guess_type("x" + os.path.splitext(environ["PATH_INFO"])[1])
            if environ["PATH_INFO"].endswith("/"):
                kind = "text/html"
            kind = kind or "application/octet-stream"
            text = kind.startswith("text/") or kind in ("application/json", "application/manifest+json")
            fields = [
                ("ETag", file.tag),
                ("Last-Modified", email.utils.formatdate(int(file.stat.st_mtime), usegmt=True)),
                ("Cache-Control", self._cache),
            ]
            if varies:
                fields.append(("Vary", "Accept-Encoding"))
            status = _precondition(environ, file)
            if status:
                body.close()
                start_response(status, fields)
                return []
            fields += [
                ("Content-Type", kind + "; charset=utf-8" * text),
                ("X-Content-Type-Options", "nosniff"),
                ("Accept-Ranges", "bytes"),
            ]
            if file.coding:
                fields.append(("Content-Encoding", file.coding))
            begin, end = 0, size
            part = _asked_range(environ, file)
            if part is not None:
                begin, end = part
                if begin >= end:
                    body.close()
                    return _say(start_response, "416 Range Not Satisfiable", [("Content-Range", f"bytes */{size}")])
                fields.append(("Content-Range", f"bytes {begin}-{end - 1}/{size}"))
                body.seek(begin)
            fields.append(("Content-Length", str(end - begin)))
            start_response("200 OK" if part is None else "206 Partial Content", fields)
            if environ["REQUEST_METHOD"] == "HEAD" or begin == end:
                body.close()
                return []
            return _Part(body, end - begin)
        except BaseException:
            body.close()
            raise


def _say(start_response: Any, status: str, fields: list[tuple[str, str]]) -> list[bytes]:
    start_response(status, [*fields, ("Content-Type", "text/plain")])
    return [status[4:].encode() + b"\n"]


def _inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/") or path == folder


def _quoted(path: bytes) -> str:
    return "/" + quote(path).lstrip("/")  # "//host" would be another server


def _codings(field: str) -> dict[str, float]:
    """The quality of each coding in Accept-Encoding; unreadable items are ignored (section 12.5.3)."""
    found = {}
    for item in field.lower().split(","):
        matched = _accepted(item)
        if matched:
            found[matched[1]] = float(matched[2] or 1)
    return found


def _time(field: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(field).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _among(tag: str, field: str, weakly: bool) -> bool:
    """Whether `tag` is one of those in the field (sections 8.8.3.2, 13.1.1, 13.1.2)."""
    tags = _tag.findall(field)
    if weakly:
        tags = [found.removeprefix("W/") for found in tags]
    return field.strip() == "*" or tag in tags


def _precondition(environ: dict[str, Any], file: _File) -> str | None:
    """The status to answer if the request's preconditions forbid sending the file; else None (section 13.2.2)."""
    modified = int(file.stat.st_mtime)
    match, since = environ.get("HTTP_IF_MATCH"), environ.get("HTTP_IF_UNMODIFIED_SINCE")
    if match is not None:
        if not _among(file.tag, match, False):
            return "412 Precondition Failed"
    elif since is not None and (when := _time(since)) is not None and modified > when:
        return "412 Precondition Failed"
    match, since = environ.get("HTTP_IF_NONE_MATCH"), environ.get("HTTP_IF_MODIFIED_SINCE")
    if match is not None:
        if _among(file.tag, match, True):
            return "304 Not Modified"
    elif since is not None and (when := _time(since)) is not None and modified <= when:
        return "304 Not Modified"
    return None


def _asked_range(environ: dict[str, Any], file: _File) -> tuple[int, int] | None:
    """The requested range: its first byte and the one after its last; None for the whole file.

    An empty range means that it cannot be satisfied.  Several ranges get the whole file, as section 14.2 allows.
    """
    field = environ.get("HTTP_RANGE")
    if field is None or environ["REQUEST_METHOD"] != "GET":
        return None
    unless = environ.get("HTTP_IF_RANGE")
    if unless is not None and unless.strip() != file.tag:
        # A date is strong enough only if it is the file's, and that old (section 13.1.5).
        if '"' in unless or _time(unless) != int(file.stat.st_mtime):
            return None
    found = _range(field)
    if found is None or not (found[1] or found[2]):
        return None
    size = file.stat.st_size
    if not found[1]:
        return max(size - int(found[2]), 0), size if int(found[2]) else 0
    begin = int(found[1])
    end = int(found[2]) + 1 if found[2] else size
    if found[2] and end <= begin:
        return None  # no range: ignored
    return begin, min(end, size)
