//! Networks as an operator writes them: `10.0.0.0/8`, `2001:db8::/32`, or one address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Some networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text names no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// It is no address with a prefix behind it.
    Syntax,
    /// The prefix is longer than the address.
    Prefix,
    /// The address has bits beyond the prefix; the network it lies in.
    Inside(IpAddr, u8),
    /// An IPv4 network in IPv6's clothes, which nobody is ever seen to come from.
    Mapped,
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => f.write_str("is no network, as in \"10.0.0.0/8\" or \"2001:db8::1\""),
            Self::Prefix => f.write_str("has a longer prefix than there are bits"),
            Self::Inside(network, prefix) => {
                write!(f, "lies inside its network, which is {network}/{prefix}")
            }
            Self::Mapped => f.write_str("is an IPv4 network: write it as one"),
        }
    }
}

impl Networks {
    /// Reads networks.
    ///
    /// # Errors
    /// Each text that is none, with the reason.
    pub fn read(texts: &[String]) -> Result<Self, Vec<(String, NetworkError)>> {
        let (mut networks, mut faults) = (Vec::new(), Vec::new());
        for text in texts {
            match text.parse() {
                Ok(network) => networks.push(network),
                Err(fault) => faults.push((text.clone(), fault)),
            }
        }
        if faults.is_empty() { Ok(Self(networks)) } else { Err(faults) }
    }

    /// Whether an address lies in one of them.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| masked(address, network.prefix) == Some(network.address))
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether everybody is in one of them.
    #[must_use]
    pub fn are_everything(&self) -> bool {
        self.0.iter().any(|network| network.prefix == 0)
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Network { address, prefix }) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{address}/{prefix}")?;
        }
        Ok(())
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Syntax)?;
        if address.to_canonical() != address {
            return Err(NetworkError::Mapped);
        }
        let all = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => all,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| NetworkError::Prefix)?
            }
            Some(_) => return Err(NetworkError::Syntax),
        };
        match masked(address, prefix) {
            None => Err(NetworkError::Prefix),
            Some(network) if network == address => Ok(Self { address, prefix }),
            Some(network) => Err(NetworkError::Inside(network, prefix)),
        }
    }
}

/// The network of this prefix that the address lies in; `None` where the prefix is longer than the address.
fn masked(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    let kept = |bits: u8| bits.checked_sub(prefix).map(u32::from);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(kept(32)?).unwrap_or(0);
            Some(IpAddr::V4((v4.to_bits() & mask).into()))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(kept(128)?).unwrap_or(0);
            Some(IpAddr::V6((v6.to_bits() & mask).into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        Networks::read(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn addresses_lie_in_their_networks() {
        let listed = networks(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/33"]);
        for inside in ["10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8:7fff::1"] {
            assert!(listed.contain(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.0", "9.255.255.255", "192.0.2.6", "2001:db8:8000::", "::", "::a00:1"] {
            assert!(!listed.contain(outside.parse().unwrap()), "{outside}");
        }
        assert_eq!(listed.to_string(), "10.0.0.0/8, 192.0.2.7/32, 2001:db8::/33");
        assert!(!Networks::default().contain([127, 0, 0, 1].into()));
    }

    #[test]
    fn nothing_is_longer_than_everything() {
        let all = networks(&["0.0.0.0/0"]);
        assert!(all.are_everything() && all.contain([255; 4].into()));
        assert!(!all.contain("::1".parse().unwrap()));
        assert!(!networks(&["0.0.0.0/1"]).are_everything());
    }

    #[test]
    fn each_mistake_is_told() {
        let texts =
            ["10.0.0.1/8", "10.0.0.0/33", "::ffff:10.0.0.0/104", "ten", "10.0.0.0/", "10.0.0.0/+8", "10/8"];
        let faults = Networks::read(&texts.map(str::to_owned)).unwrap_err();
        let faults: Vec<_> = faults.into_iter().map(|(_, fault)| fault).collect();
        let inside = NetworkError::Inside([10, 0, 0, 0].into(), 8);
        let syntax = NetworkError::Syntax;
        assert_eq!(
            faults,
            [
                inside,
                NetworkError::Prefix,
                NetworkError::Mapped,
                syntax,
                NetworkError::Prefix,
                syntax,
                syntax
            ]
        );
    }
}
