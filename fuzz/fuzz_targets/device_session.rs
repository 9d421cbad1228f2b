#![no_main]

moorline_fuzz::hostile!("device_session");
