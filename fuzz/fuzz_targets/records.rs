#![no_main]

moorline_fuzz::hostile!("records");
