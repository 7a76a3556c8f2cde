"""Official files of data sets: from a folder of the user's, or fetched and kept; always checked."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pooch

from flowopt.errors import DataError

FOLDER_VARIABLE = "FLOWOPT_DATA"


@dataclass(frozen=True)
class Source:
    """Where the files of a data set come from.

    Attributes:
        title: Name of the data set for messages.
        folder: In the folder of all data, and in the cache.
        address: Where it is fetched: a folder of files, or an archive that holds them.
        checksums: Name of each file → its sha256.
        archive_checksum: sha256 of the archive, None where the address is a folder.
        archive_folder: Which of the archive's folders holds the files.
    """

    title: str
    folder: str
    address: str
    checksums: Mapping[str, str]
    archive_checksum: str | None = None
    archive_folder: str = "."


def official_file(source: Source, name: str) -> Path:
    """A file of a data set, on this machine.

    Args:
        source: Of the data set.
        name: One of `source.checksums`.

    Raises:
        DataError: The folder or the file is missing, it is not the official one, or it can not
            be fetched.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return _fetched_file(source, name)
    remedy = f"correct {FOLDER_VARIABLE}, or unset it to fetch the data"
    if not Path(folder).is_dir():
        raise DataError(f"{FOLDER_VARIABLE} names {folder}, expected a folder: {remedy}")
    path = Path(folder) / source.folder / name
    if not path.is_file():
        raise DataError(f"{path} does not exist, expected {source.title}'s official file: {remedy}")
    return _checked(source, path, remedy)


def _fetched_file(source: Source, name: str) -> Path:
    cache = pooch.os_cache("flowopt") / source.folder
    if source.archive_checksum is None:
        return _retrieved(source, source.address + name, source.checksums[name], cache)
    path = cache / source.archive_folder / name
    if not path.is_file():
        members = [f"{source.archive_folder}/{member}" for member in source.checksums]
        unpack = pooch.Untar(members=members, extract_dir=".")
        _retrieved(source, source.address, source.archive_checksum, cache, unpack)
    return _checked(source, path, "delete it, and it is unpacked again")


def _retrieved(
    source: Source, address: str, checksum: str, cache: Path, unpack: pooch.Untar | None = None
) -> Path:
    name = address.rpartition("/")[-1]
    try:
        pooch.retrieve(
            address,
            known_hash=f"sha256:{checksum}",
            fname=name,
            path=cache,
            processor=unpack,
            progressbar=sys.stderr.isatty(),
        )
    # Network errors are OSErrors; pooch reports a wrong checksum as a ValueError.
    except (OSError, ValueError) as error:
        names = ", ".join(source.checksums) if unpack else name
        raise DataError(
            f"{address} could not be fetched ({error}), expected {source.title}'s official file: "
            f"try again, or set {FOLDER_VARIABLE} to a folder with, in {source.folder}/, {names}"
        ) from error
    return cache / name


def _checked(source: Source, path: Path, remedy: str) -> Path:
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    expected = source.checksums[path.name]
    if checksum != expected:
        raise DataError(
            f"{path} has the sha256 {checksum}, expected {expected} of {source.title}'s official "
            f"file: replace it, {remedy}"
        )
    return path
