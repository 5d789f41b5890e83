"""Networks with a known exact match on any captchas of one character: real ONNX files that guess.

A guesser answers the alphabet's first character or, depending on the sum of an image's pixels, nothing at all. With an
alphabet of two it is right on half of the images that it answers; one that answers more is right wherever one that
answers less is.
"""

from pathlib import Path

import onnx
import onnx.parser
import workspace

from captchalab import params, yaml
from captchalab.project import Project
from captchalab.reading.captcha import CaptchaParams

CAPTCHA = {"alphabet": "AB", "length": 1, "width_px": 32, "height_px": 32}
PARTS = 1000  # images are told apart by their pixels' sum modulo this


def text(smoke_text: str, **promote: float) -> str:
    """A params.yaml with captchas for guessers and few of them per attempt."""
    content = yaml.parse(smoke_text)
    content["captcha"].update(CAPTCHA)
    content["promote"] = {"min_exact": 0.05, "max_p": 0.05, "images": 400, "max_latency_ms": 10_000.0, **promote}
    return yaml.dump(content)


def make(folder: Path, captcha: CaptchaParams, answers: float) -> Path:
    """models/ctc as if trained and exported: a network that answers this share of all images."""
    K = len(captcha.alphabet)
    H, W, C = captcha.image_shape
    first, blank = ([10.0 if k == chosen else 0.0 for k in range(K + 1)] for chosen in (0, K))
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 17]>
        guesser (uint8[B, {H}, {W}, {C}] images) => (float[B, 1, {K + 1}] logits) {{
            axes = Constant <value = int64[3] {{1, 2, 3}}> ()
            parts = Constant <value = int64[1] {{{PARTS}}}> ()
            answered = Constant <value = int64[1] {{{round(answers * PARTS)}}}> ()
            first = Constant <value = float[1, 1, {K + 1}] {{{", ".join(map(str, first))}}}> ()
            blank = Constant <value = float[1, 1, {K + 1}] {{{", ".join(map(str, blank))}}}> ()
            last = Constant <value = int64[2] {{1, 2}}> ()
            pixels = Cast <to = 7> (images)
            sum = ReduceSum <keepdims = 0> (pixels, axes)
            part = Mod (sum, parts)
            short = Less (part, answered)
            chosen = Unsqueeze (short, last)
            logits = Where (chosen, first, blank)
        }}""")
    about = {"kind": "ctc", **captcha.model_dump(), "network_md5": "of model.keras"}
    onnx.helper.set_model_props(model, {key: str(value) for key, value in about.items()})
    for path in (folder / "export" / "model.onnx", folder / "finetune" / "model.keras"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())
    return folder


def put(project: Project, answers: float, right: int = 100, val_exact: float = 0.5) -> None:
    """A tested guesser as a workspace's CTC network; see `make` and `workspace.put`."""
    captcha = params.load(project.params).captcha
    made = make(project.root.parent / f"guesser-{answers}", captcha, answers)
    workspace.put(project, "ctc", made, right, val_exact)
