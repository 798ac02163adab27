#!/usr/bin/env bash
# Build the corpus of sound in which nothing of ESC-10's ten classes occurs: recordings that Debian
# packages carry, espeak-ng's voices and synthetic noises, 16 kHz mono FLAC in pieces of up to 30 s.
#
#   tools/corpus.sh [FOLDER]     default: ${STREAMTWL_CACHE:-~/.cache/streamtwl}/corpus
#
#   FOLDER/train/<package>/...   to train on; FOLDER/test/<package>/... for scenes and tables:
#                                split by package, as listed below
#   FOLDER/LICENCES.csv          package, version, licences, split, source, hours, and what was
#                                dropped why; FOLDER/copyright/ has each package's own words
#
# Takes about 15 minutes, 4.5 GB of downloads and at most 2 GB of scratch in $TMPDIR. Stopped, it goes
# on where it was: a finished package is not made again. Packages are fetched with `apt-get download`
# and unpacked, not installed. What corpus.py drops, and why, is in its --help.
set -euo pipefail

tools=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$tools/../.venv/bin/python}
corpus=${1:-${STREAMTWL_CACHE:-$HOME/.cache/streamtwl}/corpus}

packages='
train 0ad-data
train asterisk-core-sounds-en-wav
train asterisk-core-sounds-fr-wav
train asterisk-core-sounds-it-wav
train asterisk-core-sounds-ru-wav
train colobot-common-sounds
train flare-game
train freedroidrpg-data
train hedgewars-data
train klettres-data
train lincity-ng-data
train megaglest-data
train nexuiz-data
train sonic-pi-samples
train supertuxkart-data
train tuxpaint-stamps-default
train ufoai-sound
train warzone2100-data
test boswars-data
test fillets-ng-data
test fillets-ng-data-nl
test ktuberling-data
test lomiri-sounds
test openarena-data
test supertux-data
test unknown-horizons
test warmux-data
test wesnoth-1.16-data
test wordwarvi-sound
'
declare -A languages=([train]="en-us de es it pl ru sv cs tr el" [test]="en-gb fr pt nl fi hu ro uk")
declare -A voices=([train]="f2 m1 m3 f4 klatt whisper" [test]="f1 f5 m2 m7")
sounds=('*.[wW][aA][vV]' '*.[oO][gG][gGaA]' '*.[fF][lL][aA][cC]' '*.[mM][pP]3' '*.opus')
archives='[.](zip|pk3|wz)$' # games keep their sounds in them; all are ZIP

fetch() { # PACKAGE: its sounds and its copyright into $scratch/unpacked, its version into $version
    (cd "$scratch" && apt-get download -qq -o "APT::Sandbox::User=$(id -un)" "$1") || return 1
    local deb
    deb=$(echo "$scratch"/*.deb)
    case $(dpkg-deb --field "$deb" Section) in
    non-free* | contrib*) return 1 ;;
    esac
    version=$(dpkg-deb --field "$deb" Version)
    # tar exits with 2, bsdtar with 1, where a pattern matches nothing
    dpkg-deb --fsys-tarfile "$deb" | tar --extract --directory "$scratch/unpacked" --wildcards \
        "${sounds[@]}" '*/copyright' 2>/dev/null || true
    if dpkg-deb --ctrl-tarfile "$deb" | tar --extract --to-stdout ./md5sums |
        grep -E "$archives" >/dev/null; then
        dpkg-deb --fsys-tarfile "$deb" | tar --extract --wildcards '*.zip' '*.pk3' '*.wz' \
            --to-command "$unzip" 2>/dev/null || true
    fi
    rm "$deb"
}

speak() { # SPLIT: its voices read numbers into $scratch/unpacked, in each of its languages
    local first=0 language voice
    for language in ${languages[$1]}; do
        for voice in ${voices[$1]}; do
            first=$((first + 1))
            espeak-ng -v "$language+$voice" -s $((120 + 7 * first % 60)) \
                -w "$scratch/unpacked/$language-$voice.wav" "$(seq -s '. ' "$first" 83 3900)"
        done
    done
    mkdir -p "$scratch/unpacked/usr/share/doc/espeak-ng"
    cp /usr/share/doc/espeak-ng/copyright "$scratch/unpacked/usr/share/doc/espeak-ng/"
    version=$(dpkg-query --show --showformat='${Version}' espeak-ng)
}

add() { # SPLIT PACKAGE COMMAND...: fill $scratch/unpacked with the command, and cut what it holds
    local split=$1 package=$2
    shift 2
    count=$((count + 1))
    [ -e "$corpus/.made/$split-$package.json" ] && return
    echo "[$count/$total] $split $package"
    mkdir "$scratch/unpacked"
    if "$@"; then
        local words=$scratch/unpacked/usr/share/doc/$package/copyright
        cp "$words" "$corpus/copyright/$package"
        "$python" "$tools/corpus.py" cut "$corpus" "$split" "$package" "$version" "$scratch/unpacked"
    else
        echo "$package is not to be had here: left out" >&2
    fi
    rm -rf "$scratch"/*
}

case "${1:-}" in
-*)
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"
    exit 0
    ;;
esac
command -v dpkg-deb >/dev/null || { echo "corpus.sh: this is no Debian: it has no dpkg-deb" >&2; exit 1; }
"$tools/system_packages.sh" espeak-ng libarchive-tools
[ "$(id -u)" -ne 0 ] || apt-get update -qq
mkdir -p "$corpus/copyright"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/streamtwl-corpus.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
# What tar runs for an archive, whose bytes come on stdin: so 0ad-data's 3 GB are never on the disk.
unzip="mkdir -p '$scratch/unpacked/'\"\$TAR_FILENAME.d\" && cd '$scratch/unpacked/'\"\$TAR_FILENAME.d\" &&
    bsdtar -xf - $(printf -- "--include '%s' " "${sounds[@]}"); cat >/dev/null"
count=0
total=$(($(wc -w <<<"$packages") / 2 + 2))

while read -r split package; do
    [ -z "$package" ] || add "$split" "$package" fetch "$package" </dev/null
done <<<"$packages"
for split in train test; do
    add "$split" espeak-ng speak "$split"
done
[ -e "$corpus/.made/test-noise.json" ] || "$python" "$tools/corpus.py" noise "$corpus"
"$python" "$tools/corpus.py" licences "$corpus"
