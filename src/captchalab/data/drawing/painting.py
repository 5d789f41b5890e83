"""Glyphs rotated, stretched, warped and pasted, as the package `captcha` does it with Pillow: the same bytes.

Pixels are packed into uint32, red in the lowest byte, and images lie on their side, (W, H): Pillow resizes from left to
right first, and so a loop over a column is one over neighbours, which the compiler makes one of vector instructions.
Sums of floats are taken in Pillow's order, without fused operations (Numba's default): they round alike.
Files named here are those of Pillow's src/libImaging.
"""

import math

import numpy as np
from numba import njit

PRECISION = 22  # bits after the point of a resampling weight (Resample.c: 32 - 8 - 2)
HALF = np.int32(1 << (PRECISION - 1))  # of the last bit that stays
LOW = np.uint32(255)  # of a packed pixel
EIGHT, SIXTEEN, TWENTY_FOUR = np.uint32(8), np.uint32(16), np.uint32(24)  # beside uint32 a plain 8 would make floats


@njit(cache=True, nogil=True)
def paint(captchas, glyphs, boxes, coverage, sizes, unmultiplied, opacity, canvases):
    """The texts of a batch on their backgrounds.

    Args:
        captchas, glyphs: what to draw (`chance.choose`).
        boxes, coverage, sizes: of the glyphs (`glyphs.measure`).
        unmultiplied: uint8 (256, 256), by alpha and premultiplied colour: the colour.
        opacity: uint8 (256,), by brightness.
        canvases: uint32 (B, W, H), written.
    """
    _, W, H = canvases.shape
    widest = W
    for i in range(len(captchas)):
        widest = max(widest, captchas[i].width)
    reach = 2 * max(coverage.shape[1] + coverage.shape[2], boxes.max()) + 2  # px, of a rotated or stretched glyph
    turned, stretched = np.empty((reach, reach), np.uint32), np.empty((reach, reach), np.uint32)
    upright = np.empty((reach, reach), np.uint32)
    canvas = np.empty((widest, H), np.uint32)
    first = np.empty(max(reach, widest), np.int64)
    smallest = max(reach / max(boxes.min(), 1), widest / W)  # to how small a part anything is shrunk: one of so many
    weights = np.empty((max(reach, widest), 2 * math.ceil(2.0 * smallest) + 2), np.int32)
    sums = np.empty((4, max(reach, H)), np.int32)
    mixed, plain = np.zeros(reach + 1, np.bool_), np.empty(widest + 1, np.bool_)
    edges, between = np.empty((5, reach * reach), np.int64), np.empty((2, reach * reach))
    again = np.empty((256, 256), np.uint32)  # RGBa -> RGBA -> RGBa, by alpha and colour
    for a in range(256):
        for v in range(256):
            again[a, v] = _over_255(np.int64(unmultiplied[a, v]) * a)
    as_is = np.empty((256, 256), np.uint32)
    as_is[:] = np.arange(256)
    colours, whole = np.empty((4, 256)), np.empty(256, np.uint32)
    for i in range(len(captchas)):
        captcha = captchas[i]
        canvas[: captcha.width] = _packed(captcha.background[0], captcha.background[1], captcha.background[2], 0)
        plain[:] = True
        for c in range(256):  # a glyph's colour, premultiplied, by coverage
            alpha = _over_255(c * captcha.ink[3])
            colours[3, c] = alpha
            for k in range(3):
                colours[k, c] = _over_255(captcha.ink[k] * alpha)
        _fill(again, colours, whole)
        for g in range(captcha.glyphs):
            glyph = glyphs[i, g]
            h, w = sizes[glyph.mask, 0], sizes[glyph.mask, 1]
            nw, nh = _rotate(coverage[glyph.mask, :h, :w], glyph.angle, colours, whole, again, edges, between, turned)
            w2 = glyph.box[0] + abs(glyph.warp[0]) + abs(glyph.warp[2])
            h2 = glyph.box[1] + abs(glyph.warp[1]) + abs(glyph.warp[3])
            if nw == w2 and nh == h2:  # Image.resize copies then, and converts nothing
                _fill(as_is, colours, whole)
                _rotate(coverage[glyph.mask, :h, :w], glyph.angle, colours, whole, as_is, edges, between, turned)
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
            _paste(source, w2, h2, glyph, unmultiplied, opacity, canvas[: captcha.width], plain)
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


@njit
def _packed(r, g, b, a):
    return np.uint32(r | (g << 8) | (b << 16) | (a << 24))


@njit
def _again(again, r, g, b, a):
    return again[a, r] | (again[a, g] << EIGHT) | (again[a, b] << SIXTEEN) | np.uint32(a << 24)


@njit
def _fill(again, colours, whole):
    for c in range(256):
        whole[c] = _again(again, int(colours[0, c]), int(colours[1, c]), int(colours[2, c]), int(colours[3, c]))


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
def _rotate(mask, angle, colours, whole, again, edges, between, out):
    """Image.rotate(angle, BILINEAR, expand=True) of a glyph; width and height.

    Rotated are premultiplied colours (bilinear_filter32RGB in Geometry.c), and they come back premultiplied by way of
    RGBA, as Pillow converts them. Where four neighbours are alike the colour is one of 256.
    """
    h, w = mask.shape
    radians = -((angle % 360.0) * (math.pi / 180.0))
    a, b = _round_15(math.cos(radians)), _round_15(math.sin(radians))
    d, e = _round_15(-math.sin(radians)), _round_15(math.cos(radians))
    c = a * (-w / 2) + b * (-h / 2) + 0.0 + w / 2
    f = d * (-w / 2) + e * (-h / 2) + 0.0 + h / 2
    nw = _extent(c, a * w + c, a * w + b * h + c, b * h + c)
    nh = _extent(f, d * w + f, d * w + e * h + f, e * h + f)
    left, top = -(nw - w) / 2.0, -(nh - h) / 2.0
    c, f = a * left + b * top + c, d * left + e * top + f
    n = 0
    for x in range(nw):
        along_x, along_y = a * (x + 0.5), d * (x + 0.5)
        for y in range(nh):
            u, v = along_x + b * (y + 0.5) + c, along_y + e * (y + 0.5) + f
            out[x, y] = 0
            if u >= 0.0 and v >= 0.0 and u < w and v < h:
                u -= 0.5
                v -= 0.5
                u0, v0 = int(u + 1.0) - 1, int(v + 1.0) - 1  # floor, of at least -0.5
                ua, ub = max(u0, 0), min(u0 + 1, w - 1)
                va, vb = max(v0, 0), min(v0 + 1, h - 1)
                p, q, r, s = mask[va, ua], mask[va, ub], mask[vb, ua], mask[vb, ub]
                if p == q and p == r and p == s:
                    out[x, y] = whole[p]
                else:
                    edges[0, n] = x * out.shape[1] + y
                    edges[1, n], edges[2, n], edges[3, n], edges[4, n] = p, q, r, s
                    between[0, n], between[1, n] = u - u0, v - v0
                    n += 1
    flat = out.reshape(-1)
    channel = np.empty(4, np.int64)
    for i in range(n):
        p, q, r, s = edges[1, i], edges[2, i], edges[3, i], edges[4, i]
        across, down = between[0, i], between[1, i]
        for k in range(4):
            upper = colours[k, p] + (colours[k, q] - colours[k, p]) * across
            lower = colours[k, r] + (colours[k, s] - colours[k, r]) * across
            channel[k] = int(upper + (lower - upper) * down)
        flat[edges[0, i]] = _again(again, channel[0], channel[1], channel[2], channel[3])
    return nw, nh


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
def _paste(source, w2, h2, glyph, unmultiplied, opacity, canvas, plain):
    """Image.transform(QUAD), nearest pixel, of an image (h2, w2), and Image.paste of what that gives.

    The package takes the opacity from the brightness: (19595 R + 38470 G + 7471 B) / 65536 (Convert.c).
    """
    w, h = glyph.box[0], glyph.box[1]
    x1, y1, x2, y2 = glyph.warp[0], glyph.warp[1], glyph.warp[2], glyph.warp[3]
    # corners, as the package gives them, and quad_transform's coefficients (Image.py, Geometry.c)
    across, down = 1.0 / w, 1.0 / h
    nex, ney, sex, sey, swx, swy = w2 - x2, -y1, w2 + x2, h2 + y2, -x1, h2 - y2
    a, b, c, d = float(x1), (nex - x1) * across, (swx - x1) * down, (sex - swx - nex + x1) * across * down
    e, f, g, j = float(y1), (ney - y1) * across, (swy - y1) * down, (sey - swy - ney + y1) * across * down
    width, H = canvas.shape
    top = int((H - h) / 2)
    last = np.uint32(0)
    red = green = blue = opaque = 0
    for x in range(max(0, -glyph.left), min(w, width - glyph.left)):
        u0, v0 = a + b * (x + 0.5), e + f * (x + 0.5)
        d0, j0 = d * (x + 0.5), j * (x + 0.5)
        column = canvas[glyph.left + x]
        for y in range(max(0, -top), min(h, H - top)):
            u, v = u0 + c * (y + 0.5) + d0 * (y + 0.5), v0 + g * (y + 0.5) + j0 * (y + 0.5)
            if u < 0.0 or v < 0.0 or u >= w2 or v >= h2:
                continue
            p = source[int(v), int(u)]
            if p == 0:
                continue
            if p != last:
                last, alpha = p, p >> TWENTY_FOUR
                red = np.int64(unmultiplied[alpha, p & LOW])
                green = np.int64(unmultiplied[alpha, (p >> EIGHT) & LOW])
                blue = np.int64(unmultiplied[alpha, (p >> SIXTEEN) & LOW])
                opaque = np.int64(opacity[(red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16])
            if opaque:
                plain[glyph.left + x] = False
                under, rest = np.int64(column[top + y]), 255 - opaque
                column[top + y] = _packed(
                    _over_255((under & 255) * rest + red * opaque),
                    _over_255(((under >> 8) & 255) * rest + green * opaque),
                    _over_255(((under >> 16) & 255) * rest + blue * opaque),
                    0,
                )
