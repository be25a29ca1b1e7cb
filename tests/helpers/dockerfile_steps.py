"""Run the steps of the Dockerfile in a plain folder, as the user it names, where no container can be built.

    python3 tests/helpers/dockerfile_steps.py demo

Fetches packages from the index as `docker build` would, so it is no test of pytest's: CI runs it. Every path of the
image is a path below the folder; `python` is the one that runs this, which the image's user must be able to execute.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def instructions(text: str) -> list[tuple[str, str]]:
    """Keyword and rest of every instruction; comments left out, continued lines joined."""
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in lines if line.strip()]


class Image:
    """A folder that stands for the image's file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workdir = folder
        self.user: dict[str, int] = {}
        self.entrypoint: list[str] = []
        environment = folder / "python"
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        kept = ("PIP_", "SSL_CERT", "REQUESTS_CA", "HTTP", "http", "no_proxy", "NO_PROXY", "LANG")
        self.settings = {name: value for name, value in os.environ.items() if name.startswith(kept)}
        self.settings["PATH"] = f"{environment / 'bin'}:/usr/bin:/bin"

    def inside(self, text: str) -> str:
        """The text with the image's absolute paths below the folder."""
        return re.sub(r"(?<![\w./])/(?=hlbt|opt/)", f"{self.folder}/", text)

    def step(self, keyword: str, rest: str) -> None:
        rest = self.inside(rest)
        if keyword == "WORKDIR":
            self.workdir = Path(rest)
            self.workdir.mkdir(parents=True, exist_ok=True)
        elif keyword == "COPY":
            *sources, target = rest.split()
            for source in sources:
                place = self.workdir / target if len(sources) == 1 else self.workdir / target / source
                at = ROOT / source
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(at, place, ignore=ignore) if at.is_dir() else shutil.copy(at, place)
        elif keyword == "RUN":
            self.run(["sh", "-c", rest])
        elif keyword == "ENV":
            self.settings |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif keyword == "USER":
            uid, gid = map(int, rest.split(":"))
            # Only root can become somebody else; any other user is one already.
            self.user = {"user": uid, "group": gid} if os.getuid() == 0 else {}
        elif keyword == "VOLUME":
            assert all(Path(place).is_dir() for place in json.loads(rest)), rest
        elif keyword == "ENTRYPOINT":
            self.entrypoint = json.loads(rest)
        else:
            assert keyword in ("FROM", "CMD"), f"{keyword} is not known here"

    def run(self, command: list[str]) -> None:
        extra = {"extra_groups": []} if self.user else {}
        subprocess.run(command, cwd=self.workdir, env=self.settings, check=True, **self.user, **extra)  # type: ignore[call-overload]


def main(words: list[str]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="hlbt-image-"))
    try:
        folder.chmod(0o755)
        image = Image(folder)
        for keyword, rest in instructions((ROOT / "Dockerfile").read_text(encoding="utf-8")):
            sys.stderr.write(f"{keyword} {rest}\n")
            image.step(keyword, rest)
        image.run([*image.entrypoint, *words])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
