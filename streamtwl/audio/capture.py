"""The capture process of a microphone: `python -m streamtwl.audio.capture`.

PortAudio lists the devices once, and re-initialising it stops every stream. So each microphone has
a process of its own: a device that wedges or disappears is dropped with its process and opened
again in a new one, while the others go on. The process needs neither numpy nor models.

    list          print the inputs as one JSON array
    open DEVICE   print one JSON line, then chunks: HEADER and float32 frames, interleaved

`open` ends when its standard input closes, after it has written what the callback delivered.
"""

import contextlib
import json
import os
import select
import signal
import struct
import sys
import time

from streamtwl.audio.ring import RingBuffer

# position of the first frame, frames, PortAudio's overflows so far, monotonic seconds at which the
# last frame came, how old it was then; frames lost in the ring show as a jump of the position
HEADER = struct.Struct("<qqqdd")
RING_S = 10.0
BLOCK_S = 0.08  # each block wakes this process and the sound server
LOOK_S = 0.25  # between two looks at whether the end has come
BUFFER_S = 0.24  # of the driver: how late the callback may be
SETTLING_S = 2.0  # ALSA's first ages are too large by up to half a second
BACKBONE_RATE = 16_000
RATES = (48_000, 44_100, 96_000, 192_000, 32_000, 22_050, 16_000, 8_000)
PORTAUDIO_ABSENT = "the PortAudio library is missing: sudo apt-get install libportaudio2"


def main(arguments: list[str]) -> int:
    """Run one of the two commands; a failure is one JSON object with the key `error`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; ours to outlive
    try:
        import sounddevice
    except OSError:
        return _fail(PORTAUDIO_ABSENT)
    try:
        if arguments[0] == "list":
            print(json.dumps(list_inputs(sounddevice)))
            return 0
        return _capture(sounddevice, arguments[1])
    except BrokenPipeError:
        return 0
    except sounddevice.PortAudioError as error:
        busy = "Device unavailable" in str(error)
        return _fail(
            f"the device is busy: does another program use it? ({error})" if busy else str(error)
        )
    except ValueError as error:
        return _fail(str(error))


def list_inputs(sounddevice) -> list[dict]:
    """Return PortAudio's inputs: index, name, host_api, channels, default_rate_hz, is_default."""
    default = sounddevice.default.device[0]
    return [
        {
            "index": device["index"],
            "name": device["name"],
            "host_api": sounddevice.query_hostapis(device["hostapi"])["name"],
            "channels": device["max_input_channels"],
            "default_rate_hz": device["default_samplerate"],
            "is_default": device["index"] == default,
        }
        for device in sounddevice.query_devices()
        if device["max_input_channels"] > 0
    ]


def choose_input(inputs: list[dict], wanted: str) -> dict:
    """Return the input that `wanted` names: "" the default, an index, a name or part of one.

    ALSA numbers its cards anew when one is plugged in again, so a name also matches without its
    "(hw:1,0)". Raises ValueError where none or several match.
    """
    if not inputs:
        raise ValueError("there is no microphone: see `streamtwl devices`, or try --demo")
    if not wanted:
        return next((device for device in inputs if device["is_default"]), inputs[0])
    if wanted.isdigit():
        matches = [device for device in inputs if device["index"] == int(wanted)]
    else:
        bare = wanted.split(" (hw:")[0].lower()
        matches = [device for device in inputs if device["name"] == wanted]
        matches = matches or [device for device in inputs if bare in device["name"].lower()]
        exact = [device for device in matches if device["name"].split(" (hw:")[0].lower() == bare]
        matches = exact or matches
    if len(matches) != 1:
        found = "no input device matches" if not matches else f"{len(matches)} inputs match"
        raise ValueError(f"{found} '{wanted}': see `streamtwl devices`")
    return matches[0]


def _capture(sounddevice, wanted: str) -> int:
    device = choose_input(list_inputs(sounddevice), wanted)
    channels, rate = _format(sounddevice, device)
    ring = RingBuffer(int(RING_S * rate), 4 * channels)
    waiting = memoryview(b"")  # of a chunk that the pipe has no room for
    overflows = 0
    came_at = time.monotonic()
    first_at: float | None = None  # when the first block came
    age_s = 0.0  # of the newest frame when it came, as far as ALSA is to be believed

    def callback(frames, _count, clock, status) -> None:
        nonlocal overflows, came_at, age_s, first_at, waiting
        ring.write(frames)
        overflows += status.input_overflow
        first_s = clock.currentTime - clock.inputBufferAdcTime  # age of the block's first frame
        block_s = len(frames) / ring.frame_bytes / rate
        came_at = time.monotonic()
        first_at = came_at if first_at is None else first_at
        plausible = block_s <= first_s < 2.0 and came_at - first_at > SETTLING_S
        age_s = first_s - block_s if plausible else 0.0
        waiting = waiting or _chunk(ring, overflows, came_at, age_s)
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # the pipe is full, or closed
            waiting = waiting[os.write(1, waiting) :]

    stream = sounddevice.RawInputStream(
        samplerate=rate,
        channels=channels,
        dtype="float32",
        device=device["index"],
        blocksize=int(BLOCK_S * rate),
        latency=BUFFER_S,
        callback=callback,
    )
    opening = {"rate": rate, "channels": channels, "device": device["name"]}
    _write(json.dumps(opening).encode() + b"\n")
    os.set_blocking(1, False)  # the callback must not wait; the ring can
    with stream:
        while stream.active and not select.select([sys.stdin], [], [], LOOK_S)[0]:
            pass
        gone = not stream.active
    os.set_blocking(1, True)
    _write(waiting)
    _write(_chunk(ring, overflows, came_at, age_s))
    return _fail(f"'{device['name']}' stopped") if gone else 0


def rates(device: dict) -> list[int]:
    """Return the rates to try: 16 kHz first where it is not a sound server that makes it.

    PulseAudio's usual resampler (speex-float-1) takes 6 dB off at 6.7 kHz and 11 dB at 7.2 kHz on
    its way to 16 kHz; that costs the classifier more than our own resampler's delay costs in time.
    """
    served = device["host_api"] == "ALSA" and "(hw:" not in device["name"]
    first = () if served else (BACKBONE_RATE, int(device["default_rate_hz"]))
    return list(dict.fromkeys((*first, *RATES)))


def _format(sounddevice, device: dict) -> tuple[int, int]:
    """Return the (channels, rate) to open with: the first that the device allows."""
    most = device["channels"]
    refusal: Exception = ValueError(f"'{device['name']}' takes no sample rate that we know")
    for channels in dict.fromkeys((min(2, most), most, 1)):
        for rate in rates(device):
            try:
                sounddevice.check_input_settings(device["index"], channels, "float32", None, rate)
                return channels, rate
            except sounddevice.PortAudioError as error:
                refusal = error
    raise refusal


def _chunk(ring: RingBuffer, overflows: int, came_at: float, age_s: float) -> memoryview:
    """Return what is in the ring as a chunk, b"" where nothing is."""
    position, frames = ring.read()
    count = len(frames) // ring.frame_bytes
    header = HEADER.pack(position, count, overflows, came_at, age_s) if frames else b""
    return memoryview(header + frames)


def _write(message: bytes | memoryview) -> None:
    view = memoryview(message)
    while view:
        view = view[os.write(1, view) :]


def _fail(reason: str) -> int:
    print(json.dumps({"error": reason}), file=sys.stderr, flush=True)
    return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
