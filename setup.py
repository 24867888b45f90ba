"""The code folders at the top level install as musicon.datasets, musicon.detect, ..."""

from pathlib import Path

from setuptools import setup

FOLDERS = ("datasets", "detect", "styletransfer")


def code_folders(top: str) -> list[str]:
    """The folder and every folder below it that holds Python files."""
    below = {str(file.parent) for file in Path(top).rglob("*.py")}
    return sorted(below)


folders = [folder for top in FOLDERS for folder in code_folders(top)]

setup(
    packages=["musicon." + folder.replace("/", ".") for folder in folders],
    package_dir={"musicon." + folder.replace("/", "."): folder for folder in folders},
    package_data={"musicon.datasets": ["tables/*.tsv", "tables/*.npz"],
                  "musicon.detect": ["templates/*.html"]},
)
