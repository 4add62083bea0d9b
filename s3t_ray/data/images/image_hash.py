"""Converts an image's perceptual hash to shingles, for finding near-duplicates.

In: the bytes of a valid image. Out: 64 shingles, "position:bit", for the same keyed MinHash as for texts
(`minhash.py`). Two images whose hashes differ in d of 64 bits have a Jaccard similarity of (64 - d) / (64 + d), so the
default threshold of 0.8 corresponds to 7 bits. The hash is imagehash's phash: whether each of the lowest frequencies is
above their median, which is stable under changes of size, compression and brightness.
"""

from __future__ import annotations

from s3t_ray.data.images.image_file import read_image


def hash_bits(data: bytes) -> list[bytes]:
    """The 64 shingles of an image. Raises MalformedRow."""
    import imagehash  # imports scipy, so only when records are sketched

    bits = imagehash.phash(read_image(data)).hash.flatten()
    return [f"{place}:{int(bit)}".encode() for place, bit in enumerate(bits)]
