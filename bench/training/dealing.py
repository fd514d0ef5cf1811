"""Which sample geul learns at which step, so that a peer can learn the same: core/random.c, data/order.c and
train/batch.c in Python.

Only for samples that are dealt n_batch at a time: without packing, or with windows that all have the same length.
"""
import struct

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(x):
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def random_bits(seed, index):
    return mix((mix(seed + GOLDEN & MASK) + index * GOLDEN) & MASK)


def permute(seed, n, i):
    """Where i of 0..n-1 goes."""
    half = 1
    while half < 31 and 1 << 2 * half < n:
        half += 1
    low, x = (1 << half) - 1, i
    while True:
        left, right = x >> half, x & low
        for turn in range(4):
            left, right = right, left ^ random_bits(seed + turn & MASK, right) & low
        x = left << half | right
        if x < n:
            return x


def sample_at(seed, n, position):
    """The sample that is taken as number `position` of the run out of n."""
    return permute(random_bits(seed, position // n), n, position % n)


def batch(seed, n, step, size):
    """The samples of a step, which counts from 0."""
    return [sample_at(seed, n, step * size + i) for i in range(size)]


def read_shard(path):
    """Ids and the end token of a .geulshard (data/shard.h)."""
    with open(path, "rb") as f:
        magic, version, vocabulary, end, width, count, _ = struct.unpack("<8s4I2Q", f.read(40))
        if magic != b"geulshrd" or version != 1:
            raise ValueError(f"{path} is no shard")
        data = f.read()
    return list(struct.unpack(f"<{count}{'H' if width == 2 else 'I'}", data)), end


def windows(ids, context):
    """Windows as geul cuts them: context + 1 ids, the last of one being the first of the next."""
    cut = [ids[i : i + context + 1] for i in range(0, len(ids) - 1, context)]
    return cut


def positions(ids, end):
    """(document, position) of every token of a window: documents begin behind an end token."""
    places, document, start = [], 0, 0
    for k in range(len(ids)):
        if k and ids[k - 1] == end:
            document, start = document + 1, k
        places.append((document, k - start))
    return places
