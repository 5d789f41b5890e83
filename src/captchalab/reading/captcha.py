"""What one image shows, and which kind of network reads it; every saved network carries this description."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from captchalab.reading.alphabet import MAX_CHARACTERS

Kind = Literal["cnn", "ctc"]
KINDS: tuple[Kind, ...] = ("cnn", "ctc")


class Strict(BaseModel):
    """Values that cannot change, of exactly the types they are declared with, and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CaptchaParams(Strict):
    """What one image shows."""

    alphabet: Annotated[str, Field(min_length=2, max_length=MAX_CHARACTERS)]
    length: PositiveInt
    width_px: Annotated[int, Field(ge=16)]
    height_px: Annotated[int, Field(ge=16)]
    channels: Literal[1, 3]

    @field_validator("alphabet")
    @classmethod
    def _visible_characters_once_each(cls, alphabet: str) -> str:
        repeated = sorted({c for c in alphabet if alphabet.count(c) > 1})
        if repeated:
            raise ValueError(f"{{key}} = {alphabet!r} repeats {', '.join(repeated)}: name each character once.")
        blanks = sorted({c for c in alphabet if c.isspace() or not c.isprintable()})
        if blanks:
            raise ValueError(f"{{key}} = {alphabet!r} has a character nobody can see, {blanks[0]!r}: take it out.")
        return alphabet

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)"""
        return self.height_px, self.width_px, self.channels
