"""The checkout itself: sizes, paths, names, configs, lock file."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LARGEST_BYTES = 2 * 1024 * 1024
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".cfg", ".sh", ".lock", ".json", ".in", ""}
# Folders of one person's machine. Written apart so that this file does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w.~}/-])/(?:home|root|Users|tmp|work|mnt|opt)" + r"/\w")
REGISTRY_HOST = re.compile("py" + r"pi\.org|python" + r"hosted|file:/" + "/", re.IGNORECASE)
CONFIG_HEADER = {
    "its command": re.compile(r"(python tools/\w+\.py|make \w+)"),
    "its expected score": re.compile(r"score|expect|AP|accuracy", re.IGNORECASE),
    "its time": re.compile(r"\d\s*(s|sec|seconds?|min|minutes?|h|hours?)\b", re.IGNORECASE),
}


def committed_files() -> list[Path]:
    """Files that git tracks; the test has nothing to say in an unpacked archive."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [file for file in files if file.is_file()]


def matches(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for file in committed_files():
        if file.suffix not in TEXT:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    return found


def test_no_committed_file_is_large() -> None:
    large = [f"{file.relative_to(ROOT)}: {file.stat().st_size / 2**20:.1f} MiB"
             for file in committed_files() if file.stat().st_size > LARGEST_BYTES]
    assert not large, "\n".join(large)


def test_no_path_of_one_machine() -> None:
    found = matches(MACHINE_PATH)
    assert not found, "\n".join(found)


def test_no_registry_host() -> None:
    found = matches(REGISTRY_HOST)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("line", "seen"), [
    ("open('" + "/ho" + "me/ann/x.png')", True),
    ("see ~/wo" + "rk/paintings", False),
    ("tests/wo" + "rk/thing", False),
    ("--images " + "/tm" + "p/a", True),
])
def test_machine_paths_are_told_from_others(line: str, seen: bool) -> None:
    assert bool(MACHINE_PATH.search(line)) is seen


def test_datasets_has_no_init() -> None:
    """With one, the Hugging Face package ``datasets`` could not be imported from here."""
    assert not (ROOT / "datasets" / "__init__.py").exists()


@pytest.mark.parametrize("file", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda f: f.stem)
def test_a_config_opens_with_command_score_and_time(file: Path) -> None:
    header = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        header.append(line)
    text = "\n".join(header)
    missing = [what for what, pattern in CONFIG_HEADER.items() if not pattern.search(text)]
    assert not missing, f"{file.relative_to(ROOT)}: its opening comment lacks {missing}"


def test_every_locked_package_is_pinned_and_hashed() -> None:
    blocks = re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements.lock").read_text(encoding="utf-8"))
    packages = [block for block in blocks if not block.startswith("#")]
    assert len(packages) > 100
    loose = [block.splitlines()[0] for block in packages
             if "==" not in block.splitlines()[0] or "--hash=sha256:" not in block]
    assert not loose, loose


def test_every_dependency_is_locked() -> None:
    """A dependency added to pyproject.toml without ``make lock`` would be missing after set-up."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    tables = re.findall(r"^(dependencies|review|explain|dev) = \[(.*?)\]$", text,
                        re.DOTALL | re.MULTILINE)
    named = {re.sub(r"[-_.]+", "-", name.lower())
             for _, body in tables for name in re.findall(r'"([A-Za-z0-9_.-]+)', body)}
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    assert {"torch", "fiftyone", "pytest"} <= named
    assert named <= locked, f"type make lock: {sorted(named - locked)} are not locked"


def test_every_link_of_a_page_leads_somewhere() -> None:
    broken = []
    for page in (file for file in committed_files() if file.suffix == ".md"):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken, "\n".join(broken)
