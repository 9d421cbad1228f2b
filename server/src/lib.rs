//! `moorline-server` as a library, so that tests can join its pure parts with the agent's: see ARCHITECTURE.md.

#![forbid(unsafe_code)]

pub mod access;
pub mod admin;
pub mod admission;
pub mod app;
pub mod capacity;
pub mod client_hello;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod ctl;
pub mod exit;
pub mod expiry;
pub mod identity;
pub mod listener;
pub mod log;
pub mod metrics;
mod ports;
pub mod proxy;
pub mod refusals;
pub mod registry;
pub mod seats;
pub mod session;
pub mod store;
pub mod threads;
pub mod tls;
pub mod turns;
pub mod webhook;
