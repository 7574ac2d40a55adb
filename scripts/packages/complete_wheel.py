"""Adds the licences of the libraries inside a wheel to it, and an SBOM that names them.

Called by: scripts/wheels, as `complete_wheel.py WHEEL SOURCES FOLDER`: SOURCES has Debian's source packages, packed and
unpacked; the finished wheel is written into FOLDER.  The SBOM is CycloneDX 1.6 in .dist-info/sboms (PEP 770).
"""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

# Debian's source package: the library's name, its licence (SPDX), where the licence's text is, and its home.
INSIDE = {
    "libuv1": ("libuv", "MIT", "LICENSE", "https://libuv.org"),
    "libev": ("libev", "BSD-2-Clause OR GPL-2.0-or-later", "LICENSE", "http://software.schmorp.de/pkg/libev.html"),
}


def debian_version(sources: Path, package: str) -> str:
    """The version of the source package in its .dsc, without the epoch, which file names do not have."""
    text = next(sources.glob(f"{package}_*.dsc")).read_text(encoding="utf-8")
    found = re.search(r"^Version: (?:\d+:)?(\S+)$", text, re.MULTILINE)
    assert found, f"no version in the description of {package}"
    return found[1]


def component(sources: Path, package: str) -> dict[str, Any]:
    """The SBOM's entry for a library."""
    name, licence, _, home = INSIDE[package]
    version = debian_version(sources, package)
    upstream = version.rpartition("-")[0]
    archive = next(sources.glob(f"{package}_*.orig.tar.*"))
    purl = f"pkg:deb/debian/{package}@{version.replace('+', '%2B')}?arch=source"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": upstream,
        "purl": purl,
        "licenses": [{"expression": licence}],
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(archive.read_bytes()).hexdigest()}],
        "externalReferences": [{"type": "website", "url": home}],
        "description": f"Linked statically; compiled from Debian's source package {package} {version}.",
    }


def sbom(wheel: Path, sources: Path) -> dict[str, Any]:
    _, version, python, _, platform = wheel.stem.split("-")
    weald = f"pkg:pypi/weald@{version}"
    parts = [component(sources, package) for package in INSIDE]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # The same wheel gets the same number each time it is made.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{weald}#{python}-{platform}')}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": weald,
                "name": "weald",
                "version": version,
                "purl": weald,
                "licenses": [{"expression": "MIT"}],
            }
        },
        "components": parts,
        "dependencies": [{"ref": weald, "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def main(wheel: Path, sources: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        run = [sys.executable, "-m", "wheel"]
        subprocess.run([*run, "unpack", "-d", scratch, str(wheel)], check=True, stdout=subprocess.DEVNULL)
        (tree,) = Path(scratch).iterdir()
        (info,) = tree.glob("*.dist-info")
        (info / "sboms").mkdir(exist_ok=True)
        (info / "sboms" / "weald.cdx.json").write_text(json.dumps(sbom(wheel, sources), indent=2) + "\n")
        metadata = (info / "METADATA").read_text(encoding="utf-8")
        for package, (name, _, text, _) in INSIDE.items():
            file = f"{name}.txt"
            (info / "licenses" / file).write_bytes((sources / package / text).read_bytes())
            metadata = metadata.replace("License-File: LICENSE\n", f"License-File: LICENSE\nLicense-File: {file}\n", 1)
        metadata = metadata.replace(
            "License-Expression: MIT\n",
            "License-Expression: MIT AND (BSD-2-Clause OR GPL-2.0-or-later)\n",
            1,
        )
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        subprocess.run([*run, "pack", "-d", str(folder), str(tree)], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
