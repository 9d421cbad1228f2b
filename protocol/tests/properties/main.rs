//! What holds for every message and for every stream, however it arrives.

mod classic;
mod frames;
mod imei;
mod messages;
mod stream;
