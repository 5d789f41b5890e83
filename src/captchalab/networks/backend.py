"""What knows TensorFlow and JAX, but for `training.device_loop`: memory growth, XLA by device, random numbers.

The others take `keras` from here, and call `start()` before they compute. TensorFlow by default;
JAX with KERAS_BACKEND=jax. On CPUs with the same vector instructions the same seed gives the same
weights, bit for bit, on any number of cores, because TensorFlow computes an operation on one thread; on
a GPU that takes TF_DETERMINISTIC_OPS=1, and time. Networks this small gain little from more threads: two
trainings side by side, a thread each, see 1.6 times the images of two trainings one after the other with
two threads. TF_NUM_INTRAOP_THREADS sets another number, which changes the last digits of the weights.
"""

import os
import platform
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

from captchalab.networks.quiet import quiet


class Device(NamedTuple):
    backend: str  # tensorflow or jax, with its version
    name: str  # what a person calls it
    accelerator: bool
    memory_bytes: int = 0  # of the accelerator; 0 where there is none, or its driver does not say

    @property
    def jit_compile(self) -> bool | Literal["auto"]:
        """XLA where the network's layers allow it, but not for TensorFlow on a CPU.

        There it makes convolutions slower: 39 images/s with it, 59 without, for the reference CNN
        on two cores. On a GPU a GRU of cuDNN does without.
        """
        return "auto" if self.accelerator or self.backend.startswith("jax") else False


ENGINE = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # TensorFlow does so by itself only with AVX-512 VNNI
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take 3/4 of the GPU
warnings.filterwarnings("ignore", message=".*np.object.*", category=FutureWarning)
with quiet():  # TensorFlow writes a dozen lines about CUDA and the CPU before its log level counts
    import keras


def start(seed: int | None = None, accelerators: bool = True) -> Device:
    """Set up the engine, and Keras' random numbers if there is a seed; says what it runs on.

    An NVIDIA GPU that the engine does not see is a warning, once per process.

    Args:
        accelerators: False hides them from the engine, for a process that has not computed yet.
    """
    with quiet():
        found = _tensorflow_gpus(accelerators) if ENGINE == "tensorflow" else _jax_accelerators(accelerators)
        keras.ops.convert_to_tensor(0.0)  # whatever the engine wants to say at its first operation
    if seed is not None:
        keras.utils.set_random_seed(seed)
    nvidia = _nvidia_gpus() if accelerators else {}
    if warning := unseen_gpu(ENGINE, found, list(nvidia), os.environ):
        _warn(warning)
    name = found[0] if found else f"{_cpu_name()}, {os.cpu_count()} cores"
    return Device(f"{ENGINE} {version(ENGINE)}", name, bool(found), nvidia.get(name, 0))


def unseen_gpu(
    engine: str, accelerators: Sequence[str], nvidia: Sequence[str], environment: Mapping[str, str]
) -> str | None:
    """What to say where the engine computes on the CPU of a machine with an NVIDIA GPU; None otherwise.

    Args:
        accelerators: names of those the engine sees.
        nvidia: names of those the driver sees.
        environment: CUDA_VISIBLE_DEVICES or JAX_PLATFORMS may hide them on purpose.
    """
    hidden = environment.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1", "NoDevFiles")
    hidden = hidden or (engine == "jax" and environment.get("JAX_PLATFORMS") == "cpu")
    if accelerators or not nvidia or hidden:
        return None
    remedy = {
        "tensorflow": "run `make setup GPU=1`",
        "jax": 'install JAX with CUDA, `.venv/bin/uv pip install "jax[cuda12]"`, with the same version of JAX',
    }
    return (
        f"This machine has an {nvidia[0]} that {engine} does not see, so this runs on the CPU: {remedy[engine]}, "
        'or set CUDA_VISIBLE_DEVICES="" to use the CPU on purpose.'
    )


@cache
def _warn(message: str) -> None:
    print(f"captchalab: {message}", file=sys.stderr, flush=True)


def _nvidia_gpus() -> dict[str, int]:
    """Name and memory in bytes of the GPUs that NVIDIA's driver knows; none without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {}
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return {pynvml.nvmlDeviceGetName(handle): pynvml.nvmlDeviceGetMemoryInfo(handle).total for handle in handles}
    except pynvml.NVMLError:
        return {}
    finally:
        pynvml.nvmlShutdown()


def _tensorflow_gpus(visible: bool) -> list[str]:
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    if not visible:
        tf.config.set_visible_devices([], "GPU")
        return []
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]


def _jax_accelerators(visible: bool) -> list[str]:
    import jax

    if not visible:
        jax.config.update("jax_platforms", "cpu")
    return [device.device_kind for device in jax.devices() if device.platform != "cpu"]


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def versions() -> dict[str, Any]:
    """What must be the same for a stage to resume from a checkpoint."""
    threads = {"threads": os.environ["TF_NUM_INTRAOP_THREADS"]} if ENGINE == "tensorflow" else {}
    return {"keras": version("keras"), ENGINE: version(ENGINE), "python": platform.python_version(), **threads}
