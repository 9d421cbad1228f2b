# shellcheck shell=bash
# Which Rust compiler builds a target, and where its standard library comes from. In this order:
# prebuilt      the toolchain in use has the target (`rustup target add`): the standard flavour only
# source        the toolchain in use has the library's source (`rustup component add rust-src`)
# distribution  a compiler and the library's source from the machine's archive, unpacked under $CACHE
#
# Building the library needs flags that a stable compiler keeps for nightly; RUSTC_BOOTSTRAP=1 allows them, here alone.

rustup_way() { echo "rustup target add ${TRIPLE:-TRIPLE}; rustup component add rust-src"; }

toolchain_has_target() { compgen -G "$(rustc --print target-libdir --target "$1" 2>/dev/null)/libstd-*.rlib" >/dev/null; }
toolchain_has_source() { [[ -e $(rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock ]]; }

# Prints prebuilt, source or distribution for `TRIPLE FLAVOUR`.
compiler_road() {
    if [[ $2 == standard ]] && toolchain_has_target "$1"; then
        echo prebuilt
    elif toolchain_has_source; then
        echo source
    else
        echo distribution
    fi
}

# Sets COMPILER to the distribution's newest compiler, unpacking it when this version is not there yet.
distribution_compiler() {
    [[ -z ${COMPILER:-} ]] || return 0
    local arch suffix version root
    arch=$(target_debian "$HOST")
    read -r version suffix < <(newest_source_package "$arch") || true
    [[ -n ${version:-} ]] || die "the package archive has no Rust of version $(rust_version) or newer with its source" "$(rustup_way)"
    root="$CACHE/rust-$version"
    if ! "$root/rustc" --version >/dev/null 2>&1; then
        mapfile -t packages < <(compiler_packages "$arch" "rustc$suffix")
        archive_unpack "$arch" "$root" "rust$suffix-src" "${packages[@]}"
        finish_compiler "$root"
    fi
    COMPILER=$root/rustc
    note "Rust of the distribution: $("$COMPILER" --version)"
}

rust_version() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml"; }

# Distributions name it rust-src, rust-web-src (the newer one, for browsers) or rust-1.NN-src.
# Prints the version of the newest that is new enough, and what stands between `rust` and `-src` in its name.
newest_source_package() {
    local package version best='' best_suffix=''
    archive_update "$1"
    while read -r package; do
        version=$(archive_version "$1" "$package")
        dpkg --compare-versions "$version" ge "$(rust_version)" || continue
        dpkg --compare-versions "$version" gt "$best" || continue
        best=$version best_suffix=${package#rust} best_suffix=${best_suffix%-src}
    done < <(archive_apt "$1" cache search --names-only '^rust(-web|-[0-9.]+)?-src$' | cut -d' ' -f1)
    echo "$best $best_suffix"
}

# The compiler with its own libraries, and any other library that this machine lacks.
compiler_packages() {
    local package
    archive_apt "$1" cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances "$2" | grep -E '^(rustc|lib)' | sort -u | while read -r package; do
        case $package in
        rustc* | libstd-rust* | libllvm*) echo "$package" ;;
        *-dev | libc6) ;;
        *) dpkg-query -W "$package" >/dev/null 2>&1 || echo "$package" ;;
        esac
    done
}

# Makes the unpacked tree usable wherever it lies, as a cache may be moved: the source where cargo looks for it, and one
# program that finds its libraries.
finish_compiler() {
    local root=$1 program libraries sysroot source
    program=$(cd "$root" && find usr -type f -name rustc -path '*/bin/*' | head -n 1)
    # shellcheck disable=SC2016 # the program's own $here
    libraries=$(cd "$root" && find usr -name '*.so*' -not -path '*/rustlib/*' -printf '$here/%h\n' | sort -u | paste -sd:)
    cat >"$root/rustc.part" <<END
#!/bin/sh
here=\$(dirname "\$0")
LD_LIBRARY_PATH="$libraries" exec "\$here/$program" "\$@"
END
    chmod +x "$root/rustc.part"
    sysroot=$("$root/rustc.part" --print sysroot)
    source=$(find "$root/usr/src" "$root/usr/lib" -path '*/library/std/Cargo.toml' | head -n 1)
    if [[ ! -e $sysroot/lib/rustlib/src/rust/library ]]; then
        mkdir -p "$sysroot/lib/rustlib/src"
        ln -sfnr "${source%/library/std/Cargo.toml}" "$sysroot/lib/rustlib/src/rust"
    fi
    mv "$root/rustc.part" "$root/rustc"
}
