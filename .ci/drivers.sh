# Drivers and compilers from Debian's packages and PyPI, unpacked to target/compilers and not installed.
# Sourced in the repository's root by compilers and compilers-nightly.
# shellcheck shell=bash

drivers=$PWD/target/compilers
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$drivers/apt/state/lists/partial" "$drivers/apt/cache/archives/partial" "$drivers/icd"

# apt by the system's settings, with sources and lists of its own.
own_apt() {
    "$1" -o Dir::State="$drivers/apt/state" -o Dir::State::status="$drivers/apt/status" \
        -o Dir::Cache="$drivers/apt/cache" -o Dir::Etc::sourcelist="$drivers/apt/sources.list" \
        -o Dir::Etc::sourceparts=- -o APT::Sandbox::User="$(id -un)" "${@:2}"
}

# The archive that a Debian system has; nothing elsewhere.
archive() {
    command -v apt-get >/dev/null || return 0
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        grep --max-count=1 '/debian/\?$' || true
}

# Lists of the releases that packages are taken from, from the archive named.
lists() {
    local keys=/usr/share/keyrings/debian-archive-keyring.gpg
    : >"$drivers/apt/status"
    for release in bookworm bookworm-backports trixie; do
        printf 'deb [signed-by=%s] %s %s main\n' "$keys" "$1" "$release"
        printf 'deb-src [signed-by=%s] %s %s main\n' "$keys" "$1" "$release"
    done >"$drivers/apt/sources.list"
    own_apt apt-get --quiet=2 update
}

# unpack FOLDER PACKAGE/RELEASE...: unpacks packages, once.
unpack() {
    local into=$drivers/$1
    [ ! -e "$into/done" ] || return 0
    rm -rf "$into" && mkdir -p "$into"
    (
        cd "$into"
        own_apt apt-get --quiet=2 download "${@:2}"
        for file in *.deb; do dpkg -x "$file" .; done
        rm ./*.deb
        touch done
    )
}

libraries=usr/lib/$(uname -m)-linux-gnu

# Mesa 25, whose Vulkan drivers are newer than those of the release.
mesa() {
    unpack mesa mesa-vulkan-drivers/bookworm-backports libdrm2/bookworm-backports \
        libdrm-amdgpu1/bookworm-backports
}

# with LIBRARY COMMAND...: a command for which Vulkan's loader finds this driver and no other.
with() {
    local file
    file=$drivers/icd/$(basename "$1" .so).json
    printf '{"file_format_version":"1.0.0","ICD":{"library_path":"%s","api_version":"1.3.0"}}\n' \
        "$1" >"$file.$BASHPID"
    # Whole, as another may read it.
    mv "$file.$BASHPID" "$file"
    # Without caches, so that times are a compiler's.
    env VK_DRIVER_FILES="$file" VK_ICD_FILENAMES="$file" XDG_RUNTIME_DIR="$drivers" \
        LD_LIBRARY_PATH="$drivers/mesa/$libraries" RADV_DEBUG=nocache \
        MESA_SHADER_CACHE_DISABLE=true "${@:2}"
}

# hold FAMILY LIBRARY VARIABLE...: what a driver makes of the kernels, held to the rules and to the
# family's table, or recorded; with the options of `extra`.
extra=()
hold() {
    begin "$1"
    with "$2" env "${@:3}" "$compilers" --hold "benches/reports/compilers/$1.md" \
        ${record:+--record} "${extra[@]}" >"$drivers/$1.md"
}

# What asks a compiler, and the bench suite, which checks a driver that runs, as .ci/run has built it.
commands() {
    compilers=$target/debug/tern-compilers
    benches=$target/release/tern-benches
    cargo build --package tern-compilers --locked
    cargo test --release -p tern-engine -p tern-benches --locked --test machine_code --test command \
        --no-run
}

llvmpipe=$drivers/mesa/$libraries/libvulkan_lvp.so
# cases NAME LIBRARY VARIABLE [FILTER]: the kernels' cases, with a variable of the driver's or "".
cases() {
    local said=$drivers/$1${4:-}.txt
    begin "checks on $1${4:+ $4}"
    with "$2" env NODEVICE_SELECT=1 ${3:+"$3"} "$benches" --device software \
        --only checks "${@:4}" >"$said" || { tail -40 "$said" && false; }
}

begin() { echo "-- $1 ($SECONDS s)"; }

# All that fails is run, and named at the end.
failures=$drivers/failed.$$
: >"$failures"
failed() { echo "$1" >>"$failures"; }
check() { "${@:2}" || failed "$1"; }
report() {
    local all
    all=$(tr '\n' ' ' <"$failures")
    rm "$failures"
    [ -z "$all" ] || { echo "failed: $all" >&2 && exit 1; }
}
