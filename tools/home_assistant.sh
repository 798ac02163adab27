#!/usr/bin/env bash
# A Home Assistant of its own for tests/services/test_home_assistant.py: its newest release needs a
# newer Python than Debian 12 has, so it lives in a small system of Debian's testing.
#
#     tools/home_assistant.sh make FOLDER             # as root; 3 minutes, 1.5 GB
#     tools/home_assistant.sh run FOLDER CONFIG       # CONFIG: a folder below FOLDER/root
#     STREAMTWL_HOME_ASSISTANT=FOLDER .venv/bin/python -m pytest tests/services/test_home_assistant.py
#
# make takes mmdebstrap (a Debian package), Debian's mirror and the Python package index.
set -euo pipefail

usage() {
    sed -n '2,9s/^# \?//p' "$0" >&2
    exit 2
}

inside() {
    chroot "$folder" /usr/bin/env -i HOME=/root LANG=C.UTF-8 \
        PATH=/opt/home-assistant/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

[ $# -ge 2 ] || usage
folder=$2
case $1 in
make)
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
        grep -oE 'https?://[^ ]+/debian/?( |$)' | head -1 | tr -d ' ' || true)
    mmdebstrap --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' \
        --include=python3-venv,python3-dev,ca-certificates,gcc,g++,libffi-dev,libssl-dev,pkg-config \
        testing "$folder" "${mirror:-http://deb.debian.org/debian}"
    for file in /etc/hosts /etc/resolv.conf /etc/ssl/certs/ca-certificates.crt; do
        cp -L "$file" "$folder$file"
    done
    python3 -m pip config list | sed -n "s/^global.index-url='\(.*\)'$/[global]\nindex-url = \1/p" \
        >"$folder/etc/pip.conf"
    inside python3 -m venv /opt/home-assistant
    inside pip install --quiet homeassistant
    inside python - >"$folder/root/needed" <<'PYTHON'
import json, pathlib, homeassistant.components as components
for name in ("mqtt", "hassio", "file_upload", "frontend"):
    manifest = pathlib.Path(components.__path__[0]) / name / "manifest.json"
    print(*json.loads(manifest.read_text()).get("requirements", []), sep="\n")
PYTHON
    inside pip install --quiet -r /root/needed
    ;;
run)
    [ $# -eq 3 ] || usage
    exec chroot "$folder" /usr/bin/env -i HOME=/root LANG=C.UTF-8 \
        PATH=/opt/home-assistant/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        hass --skip-pip --config "/root/$3"
    ;;
*) usage ;;
esac
