"""Known answers of Philox 4×32-10 by its authors (Salmon et al. 2011, file kat_vectors)."""

# Counter, key, output: words of 32 bits.
KNOWN_ANSWERS = [
    ([0] * 4, [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def as_seed(key: list[int]) -> int:
    """Two words as torch's int64, the first one the lower half."""
    unsigned = key[1] << 32 | key[0]
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned
