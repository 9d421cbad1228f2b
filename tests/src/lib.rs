//! What the tests and the demo are made of: see ARCHITECTURE.md.

pub mod bare_server;
pub mod black_hole;
pub mod board;
pub mod certs;
pub mod client;
pub mod confined;
pub mod failure;
pub mod field;
pub mod fleet;
pub mod guest;
pub mod held_sockets;
pub mod http;
pub mod left_out;
mod lines;
pub mod measure;
pub mod modem;
pub mod name_server;
pub mod pair;
pub mod process;
pub mod programs;
pub mod relay;
pub mod rig;
pub mod scene;
pub mod service_manager;
pub mod settings;
pub mod stage;
