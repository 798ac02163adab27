#!/usr/bin/env bash
# A virtual microphone: a PulseAudio server of its own with a null sink, whose monitor is what the
# ALSA device "default", and so PortAudio, records.
#
#   eval "$(tools/virtual_mic.sh start [FOLDER])"   start it; sets the variables the others need
#   paplay sound.wav                                speak into it
#   tools/virtual_mic.sh stop                       end it
#
# FOLDER (default: a new one under /tmp) keeps the server's socket, its pid and the ALSA settings.
# Debian packages: libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins
set -euo pipefail

sink=streamtwl

case "${1:-}" in
start)
    for program in pulseaudio pactl paplay; do
        command -v "$program" >/dev/null || {
            echo "virtual_mic.sh: no $program: apt-get install pulseaudio pulseaudio-utils libasound2-plugins" >&2
            exit 1
        }
    done
    folder=${2:-$(mktemp -d /tmp/streamtwl-mic.XXXXXX)}
    mkdir -p "$folder/run" "$folder/state"
    chmod 700 "$folder/run"
    cat >"$folder/asound.conf" <<EOF
</usr/share/alsa/alsa.conf>
pcm.!default { type pulse }
ctl.!default { type pulse }
EOF
    export XDG_RUNTIME_DIR="$folder/run" PULSE_RUNTIME_PATH="$folder/run" PULSE_STATE_PATH="$folder/state"
    export PULSE_SERVER="unix:$folder/run/native"
    pulseaudio -n --daemonize=no --exit-idle-time=-1 --disallow-exit --use-pid-file=no \
        --load="module-null-sink sink_name=$sink rate=48000" \
        --load="module-native-protocol-unix socket=$folder/run/native auth-anonymous=1" \
        >"$folder/pulseaudio.log" 2>&1 </dev/null &
    echo $! >"$folder/pid"
    for _ in $(seq 100); do
        pactl info >/dev/null 2>&1 && break
        sleep 0.1
    done
    pactl info >/dev/null || { cat "$folder/pulseaudio.log" >&2; exit 1; }
    echo "export VIRTUAL_MIC=$folder PULSE_SERVER=$PULSE_SERVER PULSE_SOURCE=$sink.monitor PULSE_SINK=$sink"
    echo "export ALSA_CONFIG_PATH=$folder/asound.conf"
    ;;
stop)
    kill "$(cat "${VIRTUAL_MIC:?is not set: eval what start printed}/pid")"
    ;;
*)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
    exit 2
    ;;
esac
