"""The package `captcha` once more, compiled by Numba: the same bytes for the same random numbers, many times as fast.

chance.py takes the random numbers of a batch of captchas, glyphs.py has the glyphs of the fonts, painting.py paints
them, noise.py adds dots and curve and smooths. Numba renews what it has compiled where a function's own file changes,
not where one changes that it calls: so no compiled function calls one of another file.
"""
