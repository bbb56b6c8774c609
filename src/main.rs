//! The thin binary: in come arguments, out goes an exit code; everything else is the library's.

fn main() {}
