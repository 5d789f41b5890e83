"""The random numbers of captchas: those that Python's `random` gives to the package `captcha`, in its order.

The generator is the Mersenne Twister MT19937 of Matsumoto and Nishimura (1998) as in CPython's _randommodule.c;
`_below`, `_randint` and `_uniform` are those of Lib/random.py, the same in Python 3.11 to 3.13.
"""

import numpy as np
from numba import njit

N, M = 624, 397  # words of the generator's state, and the recurrence's distance; word N counts those that were given
DOTS = 30

# What is drawn: one of these for each captcha, ...
CAPTCHA = np.dtype(
    [
        ("background", np.int64, 3),  # RGB
        ("ink", np.int64, 4),  # RGBA
        ("glyphs", np.int64),
        ("width", np.int64),  # of the canvas that the glyphs are pasted on, px
        ("arc", np.int64, 6),  # x1, y1, x2, y2 of the ellipse, px; start and end, degrees
        ("dots", np.int64, (DOTS, 2)),  # x, y
    ]
)
# ... and one of these for each of its glyphs, blanks left out: they only move what follows.
GLYPH = np.dtype(
    [
        ("box", np.int64, 2),  # w, h: what the package takes for its size, px
        ("mask", np.int64),
        ("angle", np.float64),  # degrees
        ("warp", np.int64, 4),  # x1, y1, x2, y2: how far the corners are moved, px
        ("left", np.int64),
    ]
)


@njit(cache=True, nogil=True)
def choose(keys, chances, boxes, masks, style, size, length, texts, captchas, glyphs):
    """What is drawn in a batch of B captchas.

    Args:
        keys: uint32 (B, 4), little end first: the integer that seeds Python's `random`.
        chances: float64 (K,), the characters' weights added up, as `random.choices` does.
        boxes: int64 (F, K + 1, 2), width and height of each font's characters; the last is a blank.
        masks: int64 (F, K, dx, dy), the mask of each font's characters.
        style: the package's constants, as `Style` orders them.
        size: W, H of the image.
        texts: uint8 (B, L), written.
        captchas, glyphs: CAPTCHA (B,), GLYPH (B, L); written.
    """
    state = np.empty(N + 1, np.uint32)
    widths, inked = np.empty(2 * length, np.int64), np.empty(2 * length, np.int64)
    W, H = size
    K = len(chances)
    blank_above, overlap, dx, dy, rotation, warp_x, warp_y = style
    for i in range(len(keys)):
        captcha, text = captchas[i], texts[i]
        _seed(state, keys[i])
        for j in range(length):
            drawn = _random(state) * chances[K - 1]
            k = 0
            while k < K - 1 and chances[k] <= drawn:
                k += 1
            text[j] = k
        for k in range(3):
            captcha.background[k] = _randint(state, 238, 255)
        captcha.ink[3] = _randint(state, 220, 255)
        for k in range(3):
            captcha.ink[k] = _randint(state, 10, 200)
        drawn_glyphs = total = 0
        for j in range(length):
            for char in (K, np.int64(text[j])):
                if char == K and not _random(state) > blank_above:
                    continue
                glyph = glyphs[i, j]
                font = _below(state, len(boxes))
                w, h = boxes[font, char, 0], boxes[font, char, 1]
                right, down = _randint(state, dx[0], dx[1]) - dx[0], _randint(state, dy[0], dy[1]) - dy[0]
                glyph.angle = _uniform(state, rotation[0], rotation[1])
                x = w * _uniform(state, warp_x[0], warp_x[1])
                y = h * _uniform(state, warp_y[0], warp_y[1])
                glyph.warp[0] = int(_uniform(state, -x, x))
                glyph.warp[1] = int(_uniform(state, -y, y))
                glyph.warp[2] = int(_uniform(state, -x, x))
                glyph.warp[3] = int(_uniform(state, -y, y))
                if char != K:
                    glyph.box[0], glyph.box[1] = w, h
                    glyph.mask = masks[font, char, right, down]
                widths[drawn_glyphs], inked[drawn_glyphs] = w, j if char != K else -1
                total += w
                drawn_glyphs += 1
        captcha.glyphs, captcha.width = length, max(total, W)
        average = int(total / length)
        nearer = int(overlap * average)
        left = int(average * 0.1)
        for g in range(drawn_glyphs):
            if inked[g] >= 0:
                glyphs[i, inked[g]].left = left
            left += widths[g] + _randint(state, -nearer, 0)
        for d in range(DOTS):
            captcha.dots[d, 0] = _randint(state, 0, W)
            captcha.dots[d, 1] = _randint(state, 0, H)
        arc = captcha.arc
        arc[0] = _randint(state, 0, int(W / 5))
        arc[2] = _randint(state, W - int(W / 5), W)
        arc[1] = _randint(state, int(H / 5), H - int(H / 5))
        arc[3] = _randint(state, arc[1], H - int(H / 5))
        arc[5] = _randint(state, 160, 200)
        arc[4] = _randint(state, 0, 20)


@njit
def _seed(state, key):
    """random.seed(key): init_by_array of its words, those of a leading zero left out."""
    words = len(key)
    while words > 1 and key[words - 1] == 0:
        words -= 1
    state[0] = np.uint32(19650218)
    for i in range(1, N):
        state[i] = np.uint32(np.uint64(1812433253) * _mixed(state, i) + np.uint64(i))
    i, j = 1, 0
    for _ in range(N):
        state[i] = np.uint32(
            (np.uint64(state[i]) ^ (_mixed(state, i) * np.uint64(1664525))) + np.uint64(key[j]) + np.uint64(j)
        )
        i, j = i + 1, (j + 1) % words
        if i == N:
            state[0] = state[N - 1]
            i = 1
    for _ in range(N - 1):
        state[i] = np.uint32((np.uint64(state[i]) ^ (_mixed(state, i) * np.uint64(1566083941))) - np.uint64(i))
        i += 1
        if i == N:
            state[0] = state[N - 1]
            i = 1
    state[0] = np.uint32(0x80000000)
    state[N] = np.uint32(N)


@njit
def _mixed(state, i):
    before = state[i - 1]
    return np.uint64(before ^ (before >> np.uint32(30)))


@njit
def _word(state):
    """The next 32 random bits (genrand_uint32)."""
    if state[N] == N:
        for k in range(N):
            following = state[k + 1] if k + 1 < N else state[0]
            y = (state[k] & np.uint32(0x80000000)) | (following & np.uint32(0x7FFFFFFF))
            value = state[k + M if k + M < N else k + M - N] ^ (y >> np.uint32(1))
            state[k] = value ^ np.uint32(0x9908B0DF) if y & np.uint32(1) else value
        state[N] = np.uint32(0)
    y = state[np.int64(state[N])]
    state[N] += np.uint32(1)
    y ^= y >> np.uint32(11)
    y ^= (y << np.uint32(7)) & np.uint32(0x9D2C5680)
    y ^= (y << np.uint32(15)) & np.uint32(0xEFC60000)
    return y ^ (y >> np.uint32(18))


@njit
def _random(state):
    high, low = _word(state) >> np.uint32(5), _word(state) >> np.uint32(6)
    return (float(high) * 67108864.0 + float(low)) / 9007199254740992.0


@njit
def _below(state, n):
    """A whole number below n: n.bit_length() bits, until they are below it."""
    bits, rest = 0, n
    while rest:
        bits += 1
        rest >>= 1
    drawn = n
    while drawn >= n:
        drawn = np.int64(_word(state) >> np.uint32(32 - bits))
    return drawn


@njit(inline="always")
def _randint(state, low, high):
    return low + _below(state, high - low + 1)


@njit(inline="always")
def _uniform(state, low, high):
    return low + (high - low) * _random(state)
