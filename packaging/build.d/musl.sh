# shellcheck shell=bash
# Links a musl target with the glibc cross compiler: musl's start files and library in place of glibc's.

# Prints the folder with crt1.o and libc.a: the toolchain's own where the target is installed, else the distribution's.
musl_folder() {
    local triple=$1 arch version folder own
    own=$(rustc --print target-libdir --target "$triple" 2>/dev/null)/self-contained
    if [[ -e $own/libc.a ]]; then
        echo "$own"
        return
    fi
    arch=$(target_debian "$triple")
    version=$(archive_version "$arch" musl-dev)
    [[ -n $version ]] || die "the package sources have no musl-dev for $arch" "$(rustup_way)"
    folder="$CACHE/musl-$version-$arch"
    [[ -d $folder ]] || archive_unpack "$arch" "$folder" musl-dev
    dirname "$(find "$folder" -name crt1.o)"
}

# Prints a folder with libunwind.a and find_object.o. The library asks for an unwinder by the name that LLVM's has; gcc's does the same work.
musl_unwinder() {
    local gnu folder
    gnu=$(target_gnu "$1") folder="$CACHE/unwinder-$gnu"
    mkdir -p "$folder"
    "$gnu-gcc" -Os -fPIC -c "$HERE/build.d/find_object.c" -o "$folder/find_object.o"
    echo "INPUT(-lgcc_eh -lgcc -lc)" >"$folder/libunwind.a"
    echo "$folder"
}

# Sets RUST_FLAGS for the link. At fixed addresses: a program that may lie anywhere sets its pointers right as it starts, and each page
# that it writes to for that is memory of its own.
musl_flags() {
    local musl unwinder
    musl=$(musl_folder "$1") unwinder=$(musl_unwinder "$1")
    RUST_FLAGS+=(
        -Clink-self-contained=no -Ctarget-feature=+crt-static -Crelocation-model=static "-Lnative=$unwinder" "-Lnative=$musl"
        -Clink-arg=-nostdlib "-Clink-arg=$musl/crt1.o" "-Clink-arg=$musl/crti.o"
        "-Clink-arg=-Wl,--start-group" -Clink-arg=-lgcc -Clink-arg=-lgcc_eh "-Clink-arg=$unwinder/find_object.o"
        -Clink-arg=-lc "-Clink-arg=-Wl,--end-group"
        "-Clink-arg=$musl/crtn.o"
    )
}
