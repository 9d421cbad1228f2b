#![no_main]

moorline_fuzz::hostile!("classic_requests");
