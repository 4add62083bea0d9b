"""What an image looks like, as a set: the bits of its perceptual hash, from which near-duplicates are found.

In: the bytes of an image that could be decoded. Out: 64 shingles, "place:bit", for the same keyed MinHash that texts
have (`minhash.py`). Two images whose hashes differ in d of 64 bits have a Jaccard likeness of (64 - d) / (64 + d): the
usual threshold of 0.8 is 7 bits. The hash is imagehash's phash: the signs of the lowest frequencies around their
median, which another size, compression or brightness leaves alone.
"""

from __future__ import annotations

from s3t_ray.data.images.image_file import read_image


def hash_bits(data: bytes) -> list[bytes]:
    """The 64 shingles of an image. Raises MalformedRow."""
    import imagehash  # brings scipy: only when records are sketched

    bits = imagehash.phash(read_image(data)).hash.flatten()
    return [f"{place}:{int(bit)}".encode() for place, bit in enumerate(bits)]
