//! What the kernel's messages say (rtnetlink(7)): bytes in, changes out. Pure, and any bytes may come.

use std::net::IpAddr;

/// A change that may matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// This address is no longer the device's.
    AddressGone(IpAddr),
    /// There is a default route that was not there.
    DefaultRoute,
    /// A link is as told.
    Link(Link),
    /// The link of this index is no more.
    LinkGone(u32),
}

/// A network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number.
    pub(super) index: u32,
    /// Whether it is up and has a carrier.
    pub(super) is_up: bool,
    /// Whether this answers [`LINKS`].
    pub(super) asked_for: bool,
}

/// Asks for all links: a header (32 bytes, `RTM_GETLINK`, `NLM_F_REQUEST | NLM_F_DUMP`) and an empty `ifinfomsg`.
pub(super) const LINKS: [u8; 32] = {
    let mut request = [0; 32];
    let (length, kind, flags) = (32_u32.to_ne_bytes(), RTM_GETLINK.to_ne_bytes(), 0x301_u16.to_ne_bytes());
    let mut at = 0;
    while at < 4 {
        request[at] = length[at];
        at += 1;
    }
    request[4] = kind[0];
    request[5] = kind[1];
    request[6] = flags[0];
    request[7] = flags[1];
    request
};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;

const NLM_F_MULTI: u16 = 0x2;

const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_RUNNING: u32 = 0x40;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;

/// The changes in one datagram.
pub(super) fn changes(datagram: &[u8]) -> impl Iterator<Item = Change> {
    Parts { rest: datagram, head: 16, length: |head| u32_at(head, 0) }
        .filter_map(|(head, body)| change(u16_at(head, 4)?, u16_at(head, 6)?, body))
}

fn change(kind: u16, flags: u16, body: &[u8]) -> Option<Change> {
    match kind {
        RTM_NEWLINK => link(body, flags & NLM_F_MULTI != 0).map(Change::Link),
        RTM_DELLINK => u32_at(body, 4).map(Change::LinkGone),
        RTM_DELADDR => address(body).map(Change::AddressGone),
        RTM_NEWROUTE => is_default(body).then_some(Change::DefaultRoute),
        _ => None,
    }
}

/// `struct ifinfomsg`: family, pad, type u16, index i32, flags u32, change u32.
fn link(body: &[u8], asked_for: bool) -> Option<Link> {
    let (index, flags) = (u32_at(body, 4)?, u32_at(body, 8)?);
    let is_up = flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING;
    (flags & IFF_LOOPBACK == 0).then_some(Link { index, is_up, asked_for })
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope, index u32; then attributes. On a point-to-point link, as ppp
/// makes, `IFA_ADDRESS` is the far end's.
fn address(body: &[u8]) -> Option<IpAddr> {
    let of = |kind| attribute(body.get(8..)?, kind);
    ip(of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?)
}

/// `struct rtmsg`: family, destination's length, source's length, tos, table, protocol, scope, type, flags u32. Other
/// tables than the main one serve whoever has set up rules for them.
fn is_default(body: &[u8]) -> bool {
    matches!(body, [_, 0, _, _, RT_TABLE_MAIN, _, _, RTN_UNICAST, _, _, _, _, ..])
}

/// `struct rtattr`: length u16, its own four bytes included, and type u16.
fn attribute(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    Parts { rest: attributes, head: 4, length: |head| u16_at(head, 0).map(u32::from) }
        .find(|(head, _)| u16_at(head, 2) == Some(wanted))
        .map(|(_, value)| value)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Parts that begin with their own length, each padded to four bytes. The first that is not whole ends it.
struct Parts<'b> {
    rest: &'b [u8],
    head: usize,
    length: fn(&[u8]) -> Option<u32>,
}

impl<'b> Iterator for Parts<'b> {
    type Item = (&'b [u8], &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::try_from((self.length)(self.rest)?).ok()?;
        let part = self.rest.get(..length)?.split_at_checked(self.head)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(part)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let length = 16 + u32::try_from(body.len()).unwrap();
        let head = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8]].concat();
        let mut message = [&head, body].concat();
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = 4 + u16::try_from(value.len()).unwrap();
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
    }

    fn ifinfomsg(index: u32, flags: u32) -> Vec<u8> {
        [&[0; 4][..], &index.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]].concat()
    }

    fn heard(datagram: &[u8]) -> Vec<Change> {
        changes(datagram).collect()
    }

    #[test]
    fn addresses_of_both_families_go() {
        let v4 =
            [&[2, 32, 0, 0, 5, 0, 0, 0][..], &attribute(1, &[10, 0, 0, 1]), &attribute(2, &[10, 0, 0, 2])];
        let v6 = [&[10, 64, 0, 0, 5, 0, 0, 0][..], &attribute(1, &[0x20; 16])];
        let datagram =
            [message(RTM_DELADDR, 0, &v4.concat()), message(RTM_DELADDR, 0, &v6.concat())].concat();
        let gone = ["10.0.0.2", "2020:2020:2020:2020:2020:2020:2020:2020"];
        assert_eq!(heard(&datagram), gone.map(|text| Change::AddressGone(text.parse().unwrap())));
    }

    #[test]
    fn default_route_of_the_main_table_is_told() {
        let route =
            |length, table, kind| message(RTM_NEWROUTE, 0, &[2, length, 0, 0, table, 3, 0, kind, 0, 0, 0, 0]);
        assert_eq!(heard(&route(0, 254, 1)), [Change::DefaultRoute]);
        for other in [route(24, 254, 1), route(0, 255, 2), route(0, 254, 7), route(0, 100, 1)] {
            assert_eq!(heard(&other), []);
        }
    }

    #[test]
    fn link_is_up_with_its_carrier() {
        let link = |index, is_up, asked_for| Change::Link(Link { index, is_up, asked_for });
        let datagram = [
            message(RTM_NEWLINK, NLM_F_MULTI, &ifinfomsg(1, IFF_UP | IFF_RUNNING | IFF_LOOPBACK)),
            message(RTM_NEWLINK, NLM_F_MULTI, &ifinfomsg(2, IFF_UP | IFF_RUNNING)),
            message(RTM_NEWLINK, 0, &ifinfomsg(3, IFF_UP)),
            message(RTM_DELLINK, 0, &ifinfomsg(3, 0)),
            message(3, 0, &[]),
        ];
        assert_eq!(
            heard(&datagram.concat()),
            [link(2, true, true), link(3, false, false), Change::LinkGone(3)]
        );
    }

    #[test]
    fn request_for_links_is_one_whole_message() {
        assert_eq!(u32_at(&LINKS, 0), Some(32));
        assert_eq!((u16_at(&LINKS, 4), u16_at(&LINKS, 6)), (Some(RTM_GETLINK), Some(0x301)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(changes(&bytes).count() <= bytes.len() / 16);
        }

        #[test]
        fn cut_and_garbled_messages_end(cut in 0_usize..64, at in 0_usize..64, byte in any::<u8>()) {
            let body = [&[2, 32, 0, 0, 5, 0, 0, 0][..], &attribute(1, &[10, 0, 0, 1]), &attribute(2, &[10, 0, 0, 2])];
            let mut datagram = message(RTM_DELADDR, 0, &body.concat());
            datagram.truncate(cut);
            if let Some(place) = datagram.get_mut(at) {
                *place = byte;
            }
            prop_assert!(changes(&datagram).count() <= 1);
        }
    }
}
