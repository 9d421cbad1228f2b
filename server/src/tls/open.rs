//! TLS of a device whose handshake is over.

use rustls::Error;
use rustls::pki_types::CertificateDer;

use super::pump::{Progress, Pump, Trusted};
use super::records::Records;

/// An open connection, without a buffer of its own.
///
/// ```text
///   socket ── records ──► Tls::take ──► plaintext, handed to a closure
///   socket ◄─ records ─── out ◄── Tls::say ◄── plaintext
/// ```
pub struct Tls {
    pub(super) layer: Layer,
    /// The device's chain, leaf first: it is verified anew when the files were read anew.
    pub(super) chain: Box<[CertificateDer<'static>]>,
    pub(super) trusted: Trusted,
}

/// Who reads and writes records.
#[expect(
    clippy::large_enum_variant,
    reason = "what stands is boxed as a whole, and of the other kind there are few"
)]
pub(super) enum Layer {
    Own(Records),
    /// TLS 1.2, for older fleets alone: what it keeps is rustls's matter.
    Rustls(Box<Pump>),
}

impl Tls {
    /// Of a handshake that is over, with all sent that it had to say.
    ///
    /// # Errors
    /// It is not over.
    pub fn open(pump: Pump) -> Result<Self, Error> {
        let (chain, trusted) = (pump.peer_certificates().unwrap_or_default().into(), pump.trusted);
        let layer = if pump.is_tls13() {
            let (secrets, keys) = pump.into_keys()?;
            Layer::Own(Records::new(secrets, keys))
        } else {
            Layer::Rustls(Box::new(pump))
        };
        Ok(Self { layer, chain, trusted })
    }

    /// Takes whole records off the front of `incoming`, hands what they say to `hear`, and appends what has to be sent to
    /// `out`. Returns how many bytes were taken; the rest is a record that is not finished.
    ///
    /// # Errors
    /// The peer broke TLS: `out` then ends with the alert that tells it why.
    pub fn take(
        &mut self,
        incoming: &mut [u8],
        out: &mut Vec<u8>,
        hear: impl FnMut(&[u8]),
    ) -> Result<(usize, Progress), Error> {
        match &mut self.layer {
            Layer::Own(records) => records.take(incoming, out, hear),
            Layer::Rustls(pump) => pump.take(incoming, out, hear),
        }
    }

    /// Encrypts `plaintext` to the end of `out`, as one record if it fits. `rest` is what [`Self::take`] left.
    ///
    /// # Errors
    /// The keys are used up, or the connection is not open.
    pub fn say(&mut self, plaintext: &[u8], rest: &mut [u8], out: &mut Vec<u8>) -> Result<(), Error> {
        match &mut self.layer {
            Layer::Own(records) => records.say(plaintext, out),
            Layer::Rustls(pump) => pump.say(plaintext, rest, out),
        }
    }

    /// Appends close_notify to `out`, if the connection is open. `rest` as for [`Self::say`]. Whatever comes afterwards is
    /// taken and not looked at.
    pub fn close(&mut self, rest: &mut [u8], out: &mut Vec<u8>) {
        match &mut self.layer {
            Layer::Own(records) => records.close(out),
            Layer::Rustls(pump) => pump.close(rest, out),
        }
    }
}
