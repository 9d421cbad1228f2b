#![no_main]

moorline_fuzz::hostile!("client_hello");
