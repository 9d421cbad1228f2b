#![no_main]

moorline_fuzz::hostile!("at_dialogue");
