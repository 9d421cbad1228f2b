# shellcheck shell=bash
# Packages of the machine's own archive, read and unpacked under $CACHE so that the machine stays as it is: no package is
# installed, no architecture added, no index of the system's touched. It must not know what the packages are for.
#
# Each architecture has an apt state of its own. One state for all would lose every index of an archive of which one
# architecture's index cannot be read.

archive_available() { command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; }

# apt's own tools on the private state of one architecture: `archive_apt ARCH get|cache ARGUMENT…`.
archive_apt() {
    local arch=$1 tool=$2 state="$CACHE/apt/$1"
    shift 2
    LC_ALL=C "apt-$tool" -q \
        -o "APT::Architecture=$arch" -o "APT::Architectures=$arch" -o APT::Sandbox::User=root \
        -o "Dir::State=$state" -o "Dir::State::lists=$state/lists" -o Dir::State::status=/dev/null \
        -o "Dir::Cache=$state/cache" -o "Dir::Cache::archives=$state/cache/archives" \
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}

# Reads the indexes of one architecture when they are not there yet, or when a refresh is asked for. That one of several
# sources cannot be read is no failure: what counts is whether the package is found afterwards.
archive_update() {
    local arch=$1 state="$CACHE/apt/$1"
    [[ -e $state/read && ($REFRESH = no || $state/read -nt $STARTED) ]] && return
    archive_available || die "this needs apt-get and dpkg-deb, or a Rust toolchain that has what is missing:" "$(rustup_way)"
    step "reading the package indexes for $arch"
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    archive_apt "$arch" get update >"$state/update.log" 2>&1 || note "not every source could be read: $state/update.log"
    touch "$state/read"
}

# The version of a package that the archive offers now; nothing when it has none.
archive_version() {
    archive_update "$1"
    archive_apt "$1" cache policy "$2" | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'
}

# Unpacks packages side by side: `archive_unpack ARCH FOLDER PACKAGE…`. A folder is whole or not there.
archive_unpack() {
    local arch=$1 folder=$2 debs="$2.debs" deb
    shift 2
    rm -rf "$debs" "$folder.part"
    mkdir -p "$debs" "$folder.part"
    step "unpacking $* ($arch)"
    (cd "$debs" && quietly "$folder.log" archive_apt "$arch" get download "$@")
    for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" "$folder.part"; done
    rm -rf "$debs" "$folder"
    mv "$folder.part" "$folder"
}

# Packages that must be installed on the machine itself: installed by root, named to anyone else.
machine_needs() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q ' installed$' || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    ((EUID == 0)) || die "these packages are missing:" "sudo apt-get install --no-install-recommends ${missing[*]}"
    step "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    quietly "$CACHE/install.log" apt-get update
    quietly "$CACHE/install.log" apt-get install -y --no-install-recommends "${missing[@]}"
}
