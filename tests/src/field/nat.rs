//! A carrier's NAT: it forgets a flow that was silent for a while, in one of the three ways that carriers do.

use std::process::Command;
use std::time::Duration;

use super::namespace::{Namespace, run};
use crate::failure::Failure;

/// Where the carrier meets the rest of the world.
pub(super) const OUTSIDE: &str = "wan0";

/// What becomes of a flow that was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgetting {
    /// Packets of it are dropped, from both sides.
    Silent,
    /// The device's next packet gets another port, which the server's host answers with a reset.
    Remapping,
    /// The device's next packet restores it; until then nothing comes down.
    Healing,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Nat {
    /// How it forgets.
    pub forgetting: Forgetting,
    /// The longest silence that it bears, whole seconds.
    pub after: Duration,
}

impl Nat {
    /// Puts it between a carrier's two sides.
    #[track_caller]
    pub(super) fn lay(self, carrier: &Namespace) -> Result<(), Failure> {
        // Only once there is a rule that follows connections does the kernel follow them.
        let rules = tempfile::NamedTempFile::new()?;
        std::fs::write(rules.path(), self.rules())?;
        run(&mut carrier.command(Command::new("nft").arg("-f").arg(rules.path())))?;
        let loose = if self.forgetting == Forgetting::Silent { "0" } else { "1" };
        carrier.allow("net.netfilter.nf_conntrack_tcp_loose", loose)?;
        carrier.allow("net.netfilter.nf_conntrack_tcp_timeout_established", &self.after.as_secs().to_string())
    }

    /// What comes from outside for no flow that is known is dropped without a word, as carriers do: the NAT's own host
    /// would answer it with a reset.
    fn rules(self) -> String {
        let ports = if self.forgetting == Forgetting::Remapping { "random" } else { "" };
        let strange = if self.forgetting == Forgetting::Silent { "ct state invalid drop" } else { "" };
        format!(
            "table ip carrier {{
                chain translate {{ type nat hook postrouting priority srcnat; oifname {OUTSIDE} masquerade {ports}; }}
                chain own {{ type filter hook input priority filter; iifname {OUTSIDE} drop; }}
                chain through {{ type filter hook forward priority filter; {strange}; }}
            }}"
        )
    }
}
