#![no_main]

moorline_fuzz::hostile!("agent_config");
