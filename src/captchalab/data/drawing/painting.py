"""Glyphs rotated, stretched, warped and pasted, as the package `captcha` does it with Pillow: the same bytes.

Pixels are packed into uint32, red in the lowest byte, and images lie on their side, (W, H): Pillow resizes from left to
right first, and so a loop over a column is one over neighbours, which the compiler makes one of vector instructions;
what it cannot be made of has a loop of its own. Sums of floats are taken in Pillow's order, without fused operations
(Numba's default): they round alike. Files named here are those of Pillow's src/libImaging.
"""

import math

import numpy as np
from numba import njit

PRECISION = 22  # bits after the point of a resampling weight (Resample.c: 32 - 8 - 2)
HALF = np.int32(1 << (PRECISION - 1))  # of the last bit that stays
LOW, ALIKE = np.uint32(255), np.uint32(0x01010101)  # of a packed pixel; times it, four alike
EIGHT, SIXTEEN, TWENTY_FOUR = np.uint32(8), np.uint32(16), np.uint32(24)  # beside uint32 a plain 8 would make floats


@njit(cache=True, nogil=True)
def paint(captchas, glyphs, boxes, corners, sizes, opacity, canvases):
    """The texts of a batch on their backgrounds.

    Args:
        captchas, glyphs: what to draw (`chance.choose`).
        boxes, corners, sizes: of the glyphs (`glyphs.measure`).
        opacity: uint8 (256,), by brightness.
        canvases: uint32 (B, W, H), written.
    """
    _, W, H = canvases.shape
    widest = W
    for i in range(len(captchas)):
        widest = max(widest, captchas[i].width)
    reach = 2 * max(corners.shape[1] + corners.shape[2], boxes.max()) + 2  # px, of a rotated or stretched glyph
    turned, stretched = np.empty((reach, reach), np.uint32), np.empty((reach, reach), np.uint32)
    upright = np.empty((reach, reach), np.uint32)
    canvas = np.empty((widest, H), np.uint32)
    first = np.empty(max(reach, widest), np.int64)
    smallest = max(reach / max(boxes.min(), 1), widest / W)  # to how small a part anything is shrunk: one of so many
    weights = np.empty((max(reach, widest), 2 * math.ceil(2.0 * smallest) + 2), np.int32)
    sums = np.empty((4, max(reach, H)), np.int32)
    places, shown = np.empty(max(reach, H), np.int32), np.empty(max(reach, H), np.uint32)
    mixed, plain = np.zeros(reach + 1, np.bool_), np.empty(widest + 1, np.bool_)
    again = np.empty((256, 256), np.uint32)  # RGBa -> RGBA -> RGBa, by alpha and colour
    for a in range(256):
        for v in range(256):
            again[a, v] = _over_255(_unmultiplied(v, a) * a)
    as_is = np.empty((256, 256), np.uint32)
    as_is[:] = np.arange(256)
    colours, whole = np.empty((256, 4)), np.empty(256, np.uint32)
    for i in range(len(captchas)):
        captcha = captchas[i]
        canvas[: captcha.width] = _packed(captcha.background[0], captcha.background[1], captcha.background[2], 0)
        plain[:] = True
        for c in range(256):  # a glyph's colour, premultiplied, by coverage
            alpha = _over_255(c * captcha.ink[3])
            colours[c, 3] = alpha
            for k in range(3):
                colours[c, k] = _over_255(captcha.ink[k] * alpha)
        _fill(again, colours, whole)
        for g in range(captcha.glyphs):
            glyph = glyphs[i, g]
            h, w = sizes[glyph.mask, 0], sizes[glyph.mask, 1]
            nw, nh = _rotate(corners[glyph.mask], w, h, glyph.angle, colours, whole, again, places, shown, turned)
            w2 = glyph.box[0] + abs(glyph.warp[0]) + abs(glyph.warp[2])
            h2 = glyph.box[1] + abs(glyph.warp[1]) + abs(glyph.warp[3])
            if nw == w2 and nh == h2:  # Image.resize copies then, and converts nothing
                _fill(as_is, colours, whole)
                _rotate(corners[glyph.mask], w, h, glyph.angle, colours, whole, as_is, places, shown, turned)
                _fill(again, colours, whole)
            if nh - h2 > 2 * max(0, nw - w2):  # Pillow 13.0.0 begins with the rows here: read off its results
                _mirror(turned, nw, nh, upright)
                taps = _weights(nh, h2, first, weights)
                _resample(upright, nw, h2, first, weights, taps, sums, mixed, stretched)
                _mirror(stretched, h2, nw, turned)
                nh = h2
            source = turned
            if w2 != nw:
                taps = _weights(nw, w2, first, weights)
                _resample(turned, nh, w2, first, weights, taps, sums, mixed, stretched)
                source = stretched
            _mirror(source, w2, nh, upright)
            source = upright
            if h2 != nh:
                taps = _weights(nh, h2, first, weights)
                _resample(upright, w2, h2, first, weights, taps, sums, mixed, stretched)
                source = stretched
            _paste(source, w2, h2, glyph, opacity, places, shown, sums, canvas[: captcha.width], plain)
        if captcha.width == W:
            canvases[i] = canvas[:W]
        else:
            taps = _weights(captcha.width, W, first, weights)
            _resample(canvas, H, W, first, weights, taps, sums, plain, canvases[i])


@njit
def _over_255(value):
    """MULDIV255 (ImagingUtils.h)."""
    value += 128
    return ((value >> 8) + value) >> 8


@njit(error_model="numpy")  # no check for a division by zero: it would keep loops from vector instructions
def _unmultiplied(colour, alpha):
    """min(255, 255 colour // alpha), and the colour itself where alpha is 0 (rgba2rgbA in Convert.c), int32.

    A quotient below 256 that is no whole number is at least 1/255 below the next one, 500 times what float32 rounds by.
    """
    times, parts = (np.int32(1), np.float32(1.0)) if alpha == 0 else (np.int32(255), np.float32(alpha))
    return min(np.int32(np.float32(colour * times) / parts), np.int32(255))


@njit
def _packed(r, g, b, a):
    return np.uint32(r | (g << 8) | (b << 16) | (a << 24))


@njit
def _again(again, r, g, b, a):
    return again[a, r] | (again[a, g] << EIGHT) | (again[a, b] << SIXTEEN) | np.uint32(a << 24)


@njit
def _fill(again, colours, whole):
    for c in range(256):
        whole[c] = _again(again, int(colours[c, 0]), int(colours[c, 1]), int(colours[c, 2]), int(colours[c, 3]))


@njit
def _round_15(value):
    """Python's round(value, 15) for |value| <= 1: the nearest whole number of 1e-15.

    The product is taken exactly, as the sum of two floats (Dekker 1971), and both the whole number and 1e15 are floats
    without error: so their quotient is the float next to the decimal, which is what Python gives.
    """
    scale = 1e15
    product = value * scale
    split = 134217729.0 * value
    value_high = split - (split - value)
    value_low = value - value_high
    split = 134217729.0 * scale
    scale_high = split - (split - scale)
    scale_low = scale - scale_high
    error = (
        (value_high * scale_high - product) + value_high * scale_low + value_low * scale_high
    ) + value_low * scale_low
    nearest = np.round(product)
    beyond = (product - nearest) + error
    if beyond > 0.5:
        nearest += 1.0
    if beyond < -0.5:
        nearest -= 1.0
    return nearest / scale


@njit
def _rotate(corners, w, h, angle, colours, whole, again, places, shown, out):
    """Image.rotate(angle, BILINEAR, expand=True) of a glyph; width and height.

    Rotated are premultiplied colours (bilinear_filter32RGB in Geometry.c), and they come back premultiplied by way of
    RGBA, as Pillow converts them. Where four neighbours are alike the colour is one of 256.
    """
    radians = -((angle % 360.0) * (math.pi / 180.0))
    a, b = _round_15(math.cos(radians)), _round_15(math.sin(radians))
    d, e = _round_15(-math.sin(radians)), _round_15(math.cos(radians))
    c = a * (-w / 2) + b * (-h / 2) + 0.0 + w / 2
    f = d * (-w / 2) + e * (-h / 2) + 0.0 + h / 2
    nw = _extent(c, a * w + c, a * w + b * h + c, b * h + c)
    nh = _extent(f, d * w + f, d * w + e * h + f, e * h + f)
    left, top = -(nw - w) / 2.0, -(nh - h) / 2.0
    c, f = a * left + b * top + c, d * left + e * top + f
    fours = corners.reshape(-1)
    row, nothing = np.int32(corners.shape[1]), np.int32(len(fours) - 1)
    channel = np.empty(4, np.int32)
    for x in range(nw):
        along_x, along_y, to = a * (x + 0.5), d * (x + 0.5), out[x]
        for y in range(nh):
            u, v = along_x + b * (y + 0.5) + c, along_y + e * (y + 0.5) + f
            place = np.int32(v - 0.5 + 1.0) * row + np.int32(u - 0.5 + 1.0)
            places[y] = place if (u >= 0.0) & (v >= 0.0) & (u < w) & (v < h) else nothing
        if not _look_up(fours, places, shown[:nh]):
            to[:nh] = 0
            continue
        for y in range(nh):
            to[y] = whole[shown[y] & LOW]
        edges = 0
        for y in range(nh):  # without a branch, whose outcome no processor could foresee
            places[edges] = y
            edges += shown[y] != (shown[y] & LOW) * ALIKE
        for i in range(edges):
            y = places[i]
            u, v = along_x + b * (y + 0.5) + c - 0.5, along_y + e * (y + 0.5) + f - 0.5
            across, down = u - (int(u + 1.0) - 1), v - (int(v + 1.0) - 1)  # floor, of at least -0.5
            four = shown[y]
            p, q, r, s = four & LOW, (four >> EIGHT) & LOW, (four >> SIXTEEN) & LOW, four >> TWENTY_FOUR
            for k in range(4):
                upper = colours[p, k] + (colours[q, k] - colours[p, k]) * across
                lower = colours[r, k] + (colours[s, k] - colours[r, k]) * across
                channel[k] = np.int32(upper + (lower - upper) * down)
            to[y] = _again(again, channel[0], channel[1], channel[2], channel[3])
    return nw, nh


@njit
def _look_up(pixels, places, shown):
    """The pixels at so many places; 0 where all of them are."""
    ink = np.uint32(0)
    for i in range(len(shown)):
        shown[i] = pixels[places[i]]
        ink |= shown[i]
    return ink


@njit
def _extent(p, q, r, s):
    return math.ceil(max(p, q, r, s)) - math.floor(min(p, q, r, s))


@njit
def _bicubic(x):
    """bicubic_filter (Resample.c), a = -0.5."""
    x = abs(x)
    if x < 1.0:
        return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2.0 else 0.0


@njit
def _weights(before, after, first, weights):
    """precompute_coeffs and normalize_coeffs_8bpc (Resample.c); the most pixels that one is made of."""
    scale = before / after
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    inverse = 1.0 / stretch
    taps = 0
    shares = np.empty(weights.shape[1])
    for x in range(after):
        center = (x + 0.5) * scale
        begin = max(int(center - support + 0.5), 0)
        n = min(int(center + support + 0.5), before) - begin
        total = 0.0
        for t in range(n):
            shares[t] = _bicubic((t + begin - center + 0.5) * inverse)
            total += shares[t]
        for t in range(n):
            weight = (shares[t] / total if total != 0.0 else shares[t]) * (1 << PRECISION)
            weights[x, t] = int(weight - 0.5) if weight < 0 else int(weight + 0.5)
        weights[x, n:] = 0
        first[x] = begin
        taps = max(taps, n)
    return taps


@njit
def _resample(source, height, width, first, weights, taps, sums, plain, out):
    """ImagingResampleHorizontal_8bpc (Resample.c), of the first `height` pixels of each column to `width` columns.

    Args:
        plain: bool, by column, whether it is all of one colour, the same one for all such columns.
    """
    red, green, blue, alpha = sums[0, :height], sums[1, :height], sums[2, :height], sums[3, :height]
    for x in range(width):
        begin, to = first[x], out[x, :height]
        if plain[begin : begin + taps].all():
            to[:] = source[begin, 0]
            continue
        sums[:, :height] = HALF
        for t in range(0, taps, 2):  # by twos: the sums are read and written half as often
            one, other = weights[x, t], weights[x, t + 1]
            if one == 0 and other == 0:
                continue
            left, right = source[begin + t, :height], source[begin + t + (other != 0), :height]
            for y in range(height):
                p, q = left[y], right[y]
                red[y] += one * np.int32(p & LOW) + other * np.int32(q & LOW)
                green[y] += one * np.int32((p >> EIGHT) & LOW) + other * np.int32((q >> EIGHT) & LOW)
                blue[y] += one * np.int32((p >> SIXTEEN) & LOW) + other * np.int32((q >> SIXTEEN) & LOW)
                alpha[y] += one * np.int32(p >> TWENTY_FOUR) + other * np.int32(q >> TWENTY_FOUR)
        for y in range(height):
            to[y] = _clip(red[y]) | (_clip(green[y]) << 8) | (_clip(blue[y]) << 16) | (_clip(alpha[y]) << 24)


@njit
def _mirror(source, width, height, out):
    """Columns become rows."""
    for x in range(width):
        for y in range(height):
            out[y, x] = source[x, y]


@njit
def _clip(total):
    return min(max(total >> PRECISION, 0), 255)


@njit
def _paste(source, w2, h2, glyph, opacity, places, shown, sums, canvas, plain):
    """Image.transform(QUAD), nearest pixel, of an image (h2, w2), and Image.paste of what that gives."""
    w, h = glyph.box[0], glyph.box[1]
    x1, y1, x2, y2 = glyph.warp[0], glyph.warp[1], glyph.warp[2], glyph.warp[3]
    # corners, as the package gives them, and quad_transform's coefficients (Image.py, Geometry.c)
    across, down = 1.0 / w, 1.0 / h
    nex, ney, sex, sey, swx, swy = w2 - x2, -y1, w2 + x2, h2 + y2, -x1, h2 - y2
    a, b, c, d = float(x1), (nex - x1) * across, (swx - x1) * down, (sex - swx - nex + x1) * across * down
    e, f, g, j = float(y1), (ney - y1) * across, (swy - y1) * down, (sey - swy - ney + y1) * across * down
    width, H = canvas.shape
    top = int((H - h) / 2)
    begin, end = max(0, -top), min(h, H - top)
    n = end - begin
    pixels = source.reshape(-1)
    row, nothing = np.int32(source.shape[1]), np.int32(len(pixels) - 1)
    pixels[nothing] = 0  # there is more room than any glyph takes
    shown, red, green, blue, opaque = shown[:n], sums[0, :n], sums[1, :n], sums[2, :n], sums[3, :n]
    for x in range(max(0, -glyph.left), min(w, width - glyph.left)):
        u0, v0 = a + b * (x + 0.5), e + f * (x + 0.5)
        d0, j0 = d * (x + 0.5), j * (x + 0.5)
        for i in range(n):
            y = begin + i + 0.5
            u, v = u0 + c * y + d0 * y, v0 + g * y + j0 * y
            place = np.int32(v) * row + np.int32(u)
            places[i] = place if (u >= 0.0) & (v >= 0.0) & (u < w2) & (v < h2) else nothing
        if not _look_up(pixels, places, shown):
            continue
        _unpack(shown, red, green, blue, opaque)
        for i in range(n):
            opaque[i] = opacity[opaque[i]]
        _blend(canvas[glyph.left + x, top + begin : top + end], red, green, blue, opaque)
        plain[glyph.left + x] = False


@njit
def _unpack(pixels, red, green, blue, brightness):
    """Colours, and the brightness that opacity is looked up by: (19595 R + 38470 G + 7471 B) / 65536 (Convert.c)."""
    for i in range(len(pixels)):
        p = pixels[i]
        alpha = np.int32(p >> TWENTY_FOUR)
        r = _unmultiplied(np.int32(p & LOW), alpha)
        g = _unmultiplied(np.int32((p >> EIGHT) & LOW), alpha)
        b = _unmultiplied(np.int32((p >> SIXTEEN) & LOW), alpha)
        red[i], green[i], blue[i] = r, g, b
        brightness[i] = (r * np.int32(19595) + g * np.int32(38470) + b * np.int32(7471) + np.int32(0x8000)) >> 16


@njit
def _blend(column, red, green, blue, opaque):
    """Colours over a column of the canvas."""
    for i in range(len(column)):
        under, over = column[i], opaque[i]
        rest = np.int32(255) - over
        r = _over_255(np.int32(under & LOW) * rest + red[i] * over)
        g = _over_255(np.int32((under >> EIGHT) & LOW) * rest + green[i] * over)
        b = _over_255(np.int32((under >> SIXTEEN) & LOW) * rest + blue[i] * over)
        column[i] = _packed(r, g, b, 0)
