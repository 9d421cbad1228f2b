################################################################################
#
# moorline-agent
#
################################################################################

# The external tree is part of the sources: what is built is the commit that it lies in.
MOORLINE_AGENT_VERSION = $(shell git -C $(BR2_EXTERNAL_MOORLINE_PATH) rev-parse HEAD)
MOORLINE_AGENT_SITE = file://$(realpath $(BR2_EXTERNAL_MOORLINE_PATH)/../..)
MOORLINE_AGENT_SITE_METHOD = git
MOORLINE_AGENT_LICENSE = MIT or Apache-2.0
MOORLINE_AGENT_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE
MOORLINE_AGENT_SUBDIR = agent

# The profile "smallest" of Cargo.toml, said so that the infrastructure's --release means it.
MOORLINE_AGENT_CARGO_ENV = \
	CARGO_PROFILE_RELEASE_OPT_LEVEL=z \
	CARGO_PROFILE_RELEASE_LTO=fat \
	CARGO_PROFILE_RELEASE_PANIC=abort

define MOORLINE_AGENT_INSTALL_EXAMPLE
	$(INSTALL) -D -m 0644 $(@D)/packaging/examples/agent.toml \
		$(TARGET_DIR)/usr/share/moorline-agent/agent.toml
	$(INSTALL) -D -m 0644 $(@D)/systemd/60-moorline-modem.rules \
		$(TARGET_DIR)/usr/lib/udev/rules.d/60-moorline-modem.rules
endef
MOORLINE_AGENT_POST_INSTALL_TARGET_HOOKS += MOORLINE_AGENT_INSTALL_EXAMPLE

define MOORLINE_AGENT_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(@D)/systemd/moorline-agent.service \
		$(TARGET_DIR)/usr/lib/systemd/system/moorline-agent.service
	$(INSTALL) -D -m 0644 $(@D)/systemd/moorline-agent-stopped.service \
		$(TARGET_DIR)/usr/lib/systemd/system/moorline-agent-stopped.service
	$(INSTALL) -D -m 0644 $(@D)/systemd/tmpfiles.d/moorline-agent.conf \
		$(TARGET_DIR)/usr/lib/tmpfiles.d/moorline-agent.conf
	$(INSTALL) -D -m 0644 $(@D)/systemd/modules-load.d/moorline-modem.conf \
		$(TARGET_DIR)/usr/lib/modules-load.d/moorline-modem.conf
endef

# As sysusers.d/moorline-agent.conf has them.
define MOORLINE_AGENT_USERS
	moorline-agent -1 moorline-agent -1 * - - moorline,dialout Moorline agent
endef

$(eval $(cargo-package))
