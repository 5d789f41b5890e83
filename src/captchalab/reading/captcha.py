"""What one picture shows, and which kind of network reads it; every exported network carries this description."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

Kind = Literal["cnn", "ctc"]
KINDS: tuple[Kind, ...] = ("cnn", "ctc")


class Strict(BaseModel):
    """Values that cannot change, of exactly the types they are declared with, and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CaptchaParams(Strict):
    """What one picture shows."""

    alphabet: Annotated[str, Field(min_length=2)]
    length: PositiveInt
    width_px: Annotated[int, Field(ge=16)]
    height_px: Annotated[int, Field(ge=16)]
    channels: Literal[1, 3]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)"""
        return self.height_px, self.width_px, self.channels
