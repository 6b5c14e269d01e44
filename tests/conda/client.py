"""The commands of conda that Snakemake calls, answered by rattler's solver and installer.

As with other clients, ``CONDA_CHANNEL_ALIAS`` says where named channels are, ``RATTLER_CACHE_DIR`` where unpacked
packages are kept, from which environments are hard-linked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

import rattler
import yaml

# the oldest that Snakemake accepts
VERSION = "24.7.1"


async def create(file: Path, prefix: Path) -> None:
    """Solve an environment file and install the solution.

    Parameters
    ----------
    file
        Environment file with conda packages alone.
    prefix
        Folder of the new environment.
    """
    content = yaml.safe_load(file.read_text())
    alias = os.environ["CONDA_CHANNEL_ALIAS"]
    records = await rattler.solve(
        [f"{alias}/{channel}" for channel in content["channels"]],
        content["dependencies"],
        platforms=[str(rattler.Subdir.current()), "noarch"],
        virtual_packages=rattler.VirtualPackage.detect(),
    )
    await rattler.install(records, target_prefix=prefix, show_progress=False)


def main(arguments: list[str]) -> None:
    """Answer one command."""
    parser = argparse.ArgumentParser("conda")
    parser.add_argument("--version", action="version", version=f"conda {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info").add_argument("--json", action="store_true")
    config = commands.add_parser("config")
    config.add_argument("--get", choices=["channel_priority"])
    config.add_argument("--json", action="store_true")
    clean = commands.add_parser("clean")
    for name in ("-y", "--tarballs"):
        clean.add_argument(name, action="store_true")
    environment = commands.add_parser("env").add_subparsers(required=True).add_parser("create")
    for name in ("--quiet", "--no-default-packages"):
        environment.add_argument(name, action="store_true")
    for name in ("--file", "--prefix"):
        environment.add_argument(name, type=Path, required=True)
    asked = parser.parse_args(arguments)
    if asked.command == "info":
        prefix = str(Path(__file__).parent)
        print(json.dumps({"conda_prefix": prefix, "platform": str(rattler.Subdir.current())}))
    elif asked.command == "config":
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif asked.command == "env":
        asyncio.run(create(asked.file, asked.prefix))


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    # threads that py-rattler leaves behind crash the interpreter's own end
    os._exit(0)
