"""The project's documents and sources as text, for the tests that hold them together."""

import os
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
GUIDES = [
    "README.md", "README.zh.md", "docs/protocol.md", "docs/protocol.zh.md", "docs/operating.md", "docs/migration.md",
]  # fmt: skip


@cache
def read(name):
    return (ROOT / name).read_text()


@cache
def files():
    """Every file of the project, what was built aside."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in ("target", ".git", "node_modules", "__pycache__")]
        found += [Path(folder, name).relative_to(ROOT).as_posix() for name in names]
    return sorted(found)


def below(folder, ending=""):
    return [name for name in files() if name.startswith(folder) and name.endswith(ending)]


@cache
def sources():
    return "\n".join(read(name) for name in below("src/", ".rs") + below("crates/", ".rs"))


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def prose(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
