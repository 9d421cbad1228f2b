//! The wire, byte by byte: one file per version, each message with its bytes written out by hand from the specification.
//!
//! Devices in the field speak these bytes for as long as they live. **If one of these tests fails, do not change the
//! test**: the change you made breaks them. A new message gets a new test here, a new version a new file; nothing that
//! stands here is ever edited.

mod classic;
mod native_1;
