#![no_main]
//! Fuzzes `checks::logs`.

#[path = "../checks.rs"]
#[allow(dead_code)]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::logs(data));
