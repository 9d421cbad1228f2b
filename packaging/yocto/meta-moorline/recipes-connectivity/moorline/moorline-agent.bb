SUMMARY = "Keeps a device on a cellular line reachable"
DESCRIPTION = "Holds one mutually authenticated TLS session to a moorline-server, whatever happens to the line."
SECTION = "net"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE-MIT;md5=dca3ed5b65a52adb1cf62c4924c52d75 \
                    file://LICENSE-APACHE;md5=1836efb2eb779966696f473ee8540542"

PV = "0.1.0"

inherit cargo cargo-update-recipe-crates externalsrc systemd useradd

# The layer is part of the sources: what is built is the tree that it lies in.
EXTERNALSRC = "${@os.path.realpath(d.getVar('THISDIR') + '/../../../../..')}"
EXTERNALSRC_BUILD = "${WORKDIR}/build"

# Written by: bitbake -c update_crates moorline-agent
include moorline-agent-crates.inc
# From this one lock file: the class takes every one that it finds, and target/ may hold a compiler's.
CARGO_LOCK_SRC_DIR = "${WORKDIR}/lock"
do_update_crates:prepend() {
    install -Dm 0644 ${S}/Cargo.lock ${CARGO_LOCK_SRC_DIR}/Cargo.lock
}

CARGO_BUILD_FLAGS += "--package moorline-agent"
# The profile "smallest" of Cargo.toml, said so that every release of the class understands it. Stripping is bitbake's.
export CARGO_PROFILE_RELEASE_OPT_LEVEL = "z"
export CARGO_PROFILE_RELEASE_LTO = "fat"
export CARGO_PROFILE_RELEASE_PANIC = "abort"
export CARGO_PROFILE_RELEASE_STRIP = "none"

do_install:append() {
    install -Dm 0644 ${S}/systemd/moorline-agent.service ${D}${systemd_system_unitdir}/moorline-agent.service
    install -Dm 0644 ${S}/systemd/moorline-agent-stopped.service ${D}${systemd_system_unitdir}/moorline-agent-stopped.service
    install -Dm 0644 ${S}/systemd/tmpfiles.d/moorline-agent.conf ${D}${nonarch_libdir}/tmpfiles.d/moorline-agent.conf
    install -Dm 0644 ${S}/systemd/modules-load.d/moorline-modem.conf ${D}${nonarch_libdir}/modules-load.d/moorline-modem.conf
    install -Dm 0644 ${S}/systemd/60-moorline-modem.rules ${D}${nonarch_base_libdir}/udev/rules.d/60-moorline-modem.rules
    install -Dm 0644 ${S}/packaging/examples/agent.toml ${D}${docdir}/moorline-agent/agent.toml
}

SYSTEMD_SERVICE:${PN} = "moorline-agent.service"
FILES:${PN} += "${systemd_system_unitdir} ${nonarch_libdir}/tmpfiles.d ${nonarch_libdir}/modules-load.d \
                ${nonarch_base_libdir}/udev/rules.d"

# As sysusers.d/moorline-agent.conf has them.
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system moorline"
USERADD_PARAM:${PN} = "--system --no-create-home --shell /bin/false --user-group --groups moorline,dialout moorline-agent"

RRECOMMENDS:${PN} += "kernel-module-usbserial kernel-module-option kernel-module-cdc-acm"
