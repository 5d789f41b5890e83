"""Dots, curve and smoothing, as the package `captcha` adds them with Pillow: the same bytes.

Files named here are those of Pillow's src/libImaging.
"""

import math

import numpy as np
from numba import njit

LOW, PAIR, HALF = np.uint32(0xFF), np.uint32(0xFF00FF), np.uint32(0xFFFF)  # of a packed pixel
TWO, FOUR, EIGHT, SIXTEEN = np.uint32(2), np.uint32(4), np.uint32(8), np.uint32(16)  # a plain 2 would make floats


@njit(cache=True, nogil=True)
def finish(captchas, dot, canvases, images):
    """Dots, curve and smoothing of a batch.

    Args:
        captchas: what to draw (`chance.choose`).
        dot: int64 (n, 2), the pixels x, y of a dot around its place.
        canvases: uint32 (B, W, H), packed RGB; painted on.
        images: uint8 (B, H, W, C), written; grey where C is 1.
    """
    for i in range(len(captchas)):
        captcha, canvas = captchas[i], canvases[i]
        W, H = canvas.shape
        ink = np.uint32(captcha.ink[0] | (captcha.ink[1] << 8) | (captcha.ink[2] << 16))
        for d in range(len(captcha.dots)):
            for j in range(len(dot)):
                x, y = captcha.dots[d, 0] + dot[j, 0], captcha.dots[d, 1] + dot[j, 1]
                if 0 <= x < W and 0 <= y < H:
                    canvas[x, y] = ink
        _arc(captcha.arc, ink, canvas)
        _smooth(canvas, images[i])


@njit
def _arc(arc, ink, canvas):
    """ImageDraw.arc, one pixel wide (arcNew in Draw.c): an ellipse, cut by half-planes.

    Its points lie on a grid of half pixels whose origin is its centre. `quarter_next` walks up a quarter of it, from
    the right; `ellipse_next` takes all points of a row together, on both sides and mirrored.
    """
    a, b = arc[2] - arc[0], arc[3] - arc[1]
    planes = np.zeros((2, 3, 3))
    _half_planes(a, b, float(arc[4]), float(arc[5]), planes)
    x, y = a, b % 2
    more = True
    while more:
        row, right, left = y, x, x
        while more and y == row:
            left = x
            more = x != a % 2 or y != b
            if more:
                x, y = _next(a, b, x, y)
        for mirrored in (row, -row):
            _row(-right, -left, mirrored, planes, arc, ink, canvas)
            if right > 0:
                _row(left if left > 0 else 2, right, mirrored, planes, arc, ink, canvas)


@njit
def _next(a, b, x, y):
    """Of the next three points of a quarter the one that deviates least from the ellipse."""
    best_x, best_y = x, y + 2
    if x > 1:
        best = _deviation(a, b, x, y + 2)
        if best > _deviation(a, b, x - 2, y + 2):
            best = _deviation(a, b, x - 2, y + 2)
            best_x, best_y = x - 2, y + 2
        if best > _deviation(a, b, x - 2, y):
            best_x, best_y = x - 2, y
    return best_x, best_y


@njit
def _deviation(a, b, x, y):
    return abs(a * a * y * y + b * b * x * x - a * a * b * b)


@njit
def _half_planes(a, b, start, end, planes):
    """arc_init: what of the ellipse is shown, for 0 <= start <= 20 and 160 <= end <= 200 degrees, as the package draws.

    It is the union of two intersections of up to three half-planes A x + B y + C >= 0, the rows of `planes`; one
    without coefficients is the whole plane.
    """
    high = a < b  # Pillow swaps the axes then, and turns the angles
    if high:
        a, b, start, end = b, a, 450.0 - end, 450.0 - start
    radians = start * math.pi / 180.0
    from_a, from_b = -a * math.sin(radians), b * math.cos(radians)
    from_c = (a * a - b * b) * math.sin(start * math.pi / 90.0) / 2.0
    radians = end * math.pi / 180.0
    to_a, to_b = a * math.sin(radians), -b * math.cos(radians)
    to_c = (b * b - a * a) * math.sin(end * math.pi / 90.0) / 2.0
    _set(planes[0, 0], from_a, from_b, from_c)
    if high or (start > 0 and end > 180):
        _set(planes[0, 1], 0.0, -1.0 if high else 1.0, 0.0)
        _set(planes[1, 0], to_a, to_b, to_c)
        _set(planes[1, 1], 0.0, 1.0 if high else -1.0, 0.0)
    elif end - start < 180:
        _set(planes[0, 1], to_a, to_b, to_c)
        _set(planes[0, 2], 0.0, 1.0 if start > 0 and end < 180 else 0.0, 0.0)
        planes[1] = planes[0]
    else:
        _set(planes[1, 0], to_a, to_b, to_c)
    if high:
        for i in range(2):
            for j in range(3):
                planes[i, j, 0], planes[i, j, 1] = planes[i, j, 1], planes[i, j, 0]


@njit
def _set(plane, a, b, c):
    plane[0], plane[1], plane[2] = a, b, c


@njit
def _row(left, right, y, planes, arc, ink, canvas):
    """What the half-planes leave of a row (clip_tree_do_clip), painted."""
    for i in range(2):
        x0, x1 = left, right
        for j in range(3):
            a, b, c = planes[i, j, 0], planes[i, j, 1], planes[i, j, 2]
            begin, end = left, right
            if abs(a) < 1e-9:
                if b * y + c < -1e-9:
                    begin, end = 1, 0
            else:
                cut = -(b * y + c) / a
                if a * begin + b * y + c < 1e-9:
                    begin = _nearest(max(float(begin), cut))
                if a * right + b * y + c < 1e-9:
                    end = _nearest(min(float(end), cut))
            if begin > end:
                x0, x1 = 1, 0
            elif x0 <= x1:
                x0, x1 = max(x0, begin), min(x1, end)
        if x0 <= x1:
            _line(x0, x1, y, arc, ink, canvas)


@njit
def _nearest(value):
    """C's lround: halves away from zero."""
    whole = int(value)
    if abs(value - whole) >= 0.5:
        whole += 1 if value > 0 else -1
    return whole


@njit
def _line(x0, x1, y, arc, ink, canvas):
    """hline32 from grid to pixels; every sum is at least 0, so that // is C's division."""
    W, H = canvas.shape
    a, b = arc[2] - arc[0], arc[3] - arc[1]
    row = arc[1] + (y + b) // 2
    if 0 <= row < H:
        for x in range(max(arc[0] + (x0 + a) // 2, 0), min(arc[0] + (x1 + a) // 2, W - 1) + 1):
            canvas[x, row] = ink


@njit
def _smooth(canvas, image):
    """Image.filter(SMOOTH), which leaves the border as it is, and Image.convert("L") where grey is wanted.

    Pillow takes the sum S of 3 x 3 pixels, the middle one five times, in float32, and rounds S / 13 (Filter.c). That is
    never next to a half, so it is (2 S + 13) // 26; and this, for each S there can be, is a product and a shift. Two
    channels are summed at once, in the halves of 32 bits: S is at most 3,315.
    """
    W, H = canvas.shape
    C = image.shape[2]
    shown = np.empty((C, W, H), np.uint8)
    three_rb, three_g = np.empty(H, np.uint32), np.empty(H, np.uint32)
    nine_rb, nine_g = np.empty(H, np.uint32), np.empty(H, np.uint32)
    for x in range(W):
        middle = canvas[x]
        border = x == 0 or x == W - 1
        for y in range(0, H, 1 if border else H - 1):
            q = middle[y]
            _show(shown, x, y, q & LOW, (q >> EIGHT) & LOW, (q >> SIXTEEN) & LOW)
        if border:
            continue
        before, after = canvas[x - 1], canvas[x + 1]
        # a loop for each array that is written: of loops as short as these the compiler makes vector instructions
        for y in range(H):
            three_rb[y] = (before[y] & PAIR) + (middle[y] & PAIR) + (after[y] & PAIR)
        for y in range(H):
            three_g[y] = ((before[y] >> EIGHT) & LOW) + ((middle[y] >> EIGHT) & LOW) + ((after[y] >> EIGHT) & LOW)
        for y in range(1, H - 1):
            nine_rb[y] = three_rb[y - 1] + three_rb[y] + three_rb[y + 1] + FOUR * (middle[y] & PAIR)
        for y in range(1, H - 1):
            nine_g[y] = three_g[y - 1] + three_g[y] + three_g[y + 1] + FOUR * ((middle[y] >> EIGHT) & LOW)
        if C == 1:
            grey = shown[0, x]
            for y in range(1, H - 1):
                p = nine_rb[y]
                grey[y] = _grey(_thirteenth(p & HALF), _thirteenth(nine_g[y]), _thirteenth(p >> SIXTEEN))
        else:
            for y in range(1, H - 1):
                p = nine_rb[y]
                _show(shown, x, y, _thirteenth(p & HALF), _thirteenth(nine_g[y]), _thirteenth(p >> SIXTEEN))
    for c in range(C):
        for y in range(H):
            for x in range(W):
                image[y, x, c] = shown[c, x, y]


@njit
def _thirteenth(total):
    return np.uint32((TWO * total + np.uint32(13)) * np.uint32(40330)) >> np.uint32(20)


@njit
def _grey(red, green, blue):
    """Convert.c: (19595 R + 38470 G + 7471 B) / 65536."""
    return (
        np.uint32(red * np.uint32(19595) + green * np.uint32(38470) + blue * np.uint32(7471) + np.uint32(0x8000))
        >> SIXTEEN
    )


@njit
def _show(shown, x, y, red, green, blue):
    if len(shown) == 1:
        shown[0, x, y] = _grey(red, green, blue)
    else:
        shown[0, x, y], shown[1, x, y], shown[2, x, y] = red, green, blue
