# shellcheck shell=bash
# What is particular to each target: its names, its C compiler, what is shipped for it. It must not know which Rust
# compiler is used.

TARGETS=(
    armv7-unknown-linux-gnueabihf armv7-unknown-linux-musleabihf
    aarch64-unknown-linux-gnu aarch64-unknown-linux-musl
    x86_64-unknown-linux-gnu x86_64-unknown-linux-musl
)

# The distribution's name for the target's architecture.
target_debian() {
    case $1 in
    armv7-*) echo armhf ;;
    aarch64-*) echo arm64 ;;
    x86_64-*) echo amd64 ;;
    esac
}

# The prefix of the C compiler. A musl target is compiled by the glibc compiler too: what differs is what is linked.
target_gnu() {
    case $1 in
    armv7-*) echo arm-linux-gnueabihf ;;
    aarch64-*) echo aarch64-linux-gnu ;;
    x86_64-*) echo x86_64-linux-gnu ;;
    esac
}

target_is_musl() { [[ $1 == *-musl* ]]; }
target_is_host() { [[ $1 == "$HOST" ]]; }
# The machine's own processor, whatever the C library: what is compiled and linked for it needs nothing foreign.
target_runs_here() { [[ ${1%%-*} == "${HOST%%-*}" ]]; }

# The packages that compile and link C for the target, and run what comes out.
target_packages() {
    local gnu arch
    gnu=$(target_gnu "$1") arch=$(target_debian "$1")
    echo file
    if target_runs_here "$1"; then
        echo gcc libc6-dev
    else
        echo "gcc-${gnu//_/-}" "libc6-dev-$arch-cross" qemu-user-static
    fi
}

# The programs of one flavour as PACKAGE:PROGRAM. Boards get the agent; 64-bit machines on glibc may be servers too.
target_programs() {
    local triple=$1 flavour=$2
    echo moorline-agent:moorline-agent
    [[ $flavour == standard && $triple == *64-*-gnu ]] || return 0
    echo moorline-server:moorline-server moorline-server:moorlinectl moorline-certs:moorline-certs
}

# The smallest flavour is one static file; on glibc that would be three times the size, so it is built with musl alone.
# A PC that has room for the standard one has glibc.
target_flavours() {
    [[ $1 == x86_64-*-musl ]] || echo standard
    ! target_is_musl "$1" || echo smallest
}

target_runner() {
    target_runs_here "$1" && return
    case $1 in
    armv7-*) echo qemu-arm-static -L /usr/arm-linux-gnueabihf ;;
    aarch64-*) echo qemu-aarch64-static -L /usr/aarch64-linux-gnu ;;
    x86_64-*) echo qemu-x86_64-static -L /usr/x86_64-linux-gnu ;;
    esac
}
