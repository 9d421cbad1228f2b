#![no_main]

moorline_fuzz::hostile!("server_session");
