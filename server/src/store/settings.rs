//! What operators decide of single devices, and what the server itself decided until an operator looks: plain values, known
//! to the registry, every store and the API.

use crate::session::Bounds;

/// The longest label, in bytes.
pub const MAX_LABEL: usize = 64;
/// The longest reason of a hold, in bytes.
pub const MAX_REASON: usize = 256;

/// What was decided of one device. Most devices have none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Grows with each change, so that no older word takes the place of a newer one, whichever way it comes.
    pub revision: u32,
    /// It is kept out.
    pub hold: Option<Hold>,
    /// The operators' own name for it.
    pub label: Option<Box<str>>,
    /// When it was added before it ever came, UTC milliseconds since 1970.
    pub added_ms: Option<i64>,
    /// Between which lengths its longest silence is granted.
    pub bounds: Bounds,
}

/// A device is kept out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// By whom.
    pub kind: HoldKind,
    /// Since when, UTC milliseconds since 1970.
    pub since_ms: i64,
    /// Why, in words for people; empty where none were given.
    pub reason: Box<str>,
}

/// Who keeps a device out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldKind {
    /// An operator.
    Blocked,
    /// The server, since what came under this IMEI cannot be one device. An operator may do so too.
    Quarantined,
}

impl HoldKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Blocked, Self::Quarantined];

    /// The stable name in the API and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Quarantined => "quarantined",
        }
    }
}

/// Why a text is neither label nor reason.
///
/// # Errors
/// It is too long, or holds what cannot be shown on a line: in words.
pub fn check_text(text: &str, most: usize) -> Result<(), String> {
    if text.len() > most {
        return Err(format!("it is longer than {most} bytes"));
    }
    match text.chars().find(|letter| letter.is_control()) {
        Some(letter) => Err(format!("it holds {}, which cannot be shown", letter.escape_debug())),
        None => Ok(()),
    }
}
