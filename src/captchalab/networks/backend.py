"""The only room that imports TensorFlow or JAX: memory growth, XLA by device, random numbers.

The others take `keras` from here, and call `start()` before they compute. TensorFlow by default;
JAX with KERAS_BACKEND=jax. On a CPU the same seed gives the same weights, bit by bit; on a GPU that
takes TF_DETERMINISTIC_OPS=1, and time. TensorFlow takes one thread a core; TF_NUM_INTRAOP_THREADS=1
leaves room for a second training.
"""

import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Literal, NamedTuple


class Device(NamedTuple):
    backend: str  # tensorflow or jax, with its version
    name: str  # what a person calls it
    accelerator: bool

    @property
    def jit_compile(self) -> bool | Literal["auto"]:
        """XLA where the network's layers allow it, but not for TensorFlow on a CPU.

        There it makes convolutions slower: 39 images/s with it, 59 without, for the reference CNN
        on two cores. On a GPU a GRU of cuDNN does without.
        """
        return "auto" if self.accelerator or self.backend.startswith("jax") else False


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what C++ libraries write to stderr, past Python; shown only if the block fails.

    TensorFlow writes a dozen lines about CUDA and CPU features before its log level counts.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


ENGINE = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take 3/4 of the GPU
warnings.filterwarnings("ignore", message=".*np.object.*", category=FutureWarning)
with _quiet():
    import keras


def start(seed: int | None = None) -> Device:
    """Set up the engine, and Keras' random numbers if there is a seed; says what it runs on."""
    with _quiet():
        accelerators = _tensorflow_gpus() if ENGINE == "tensorflow" else _jax_accelerators()
        keras.ops.convert_to_tensor(0.0)  # whatever the engine wants to say at its first operation
    if seed is not None:
        keras.utils.set_random_seed(seed)
    name = accelerators[0] if accelerators else f"{_cpu_name()}, {os.cpu_count()} cores"
    return Device(f"{ENGINE} {version(ENGINE)}", name, bool(accelerators))


def _tensorflow_gpus() -> list[str]:
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]


def _jax_accelerators() -> list[str]:
    import jax

    return [device.device_kind for device in jax.devices() if device.platform != "cpu"]


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def versions() -> dict[str, Any]:
    """What must be the same for a checkpoint to be continued."""
    return {"keras": version("keras"), ENGINE: version(ENGINE), "python": platform.python_version()}
