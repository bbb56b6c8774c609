//! The real parts that other tests run against are there and answer.
//!
//! In: what `tests/setup` installed. Out: a failure where a tool is there but broken. Invariant: nothing is started.

#[path = "support/tools.rs"]
mod tools;

use std::process::Command;

#[test]
fn installed_tools_answer() {
    for (name, argument, expected) in [
        ("postgres", "--version", "(PostgreSQL) 15."),
        ("mariadbd", "--version", "10.11."),
        ("promtool", "--version", "version 2."),
        ("amtool", "--version", "version 0."),
        ("chromium", "--version", "Chromium"),
        ("node", "--version", "v"),
        ("java", "-version", "version"),
        ("strace", "--version", "strace"),
        ("sigma", "--help", "Usage"),
        ("moto_server", "--help", "usage"),
        ("check-jsonschema", "--version", "check-jsonschema"),
        ("cfn-lint", "--version", "cfn-lint"),
    ] {
        let Some(path) = tools::tool(name) else { continue };
        let out = Command::new(&path).arg(argument).output().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let said = [out.stdout, out.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(expected), "{} {argument}: {said}", path.display());
    }
    for package in ["kinesis-local", "playwright-core", "axe-core"] {
        let Some(folder) = tools::node_package(package) else { continue };
        assert!(folder.join("package.json").is_file(), "{package}");
    }
}
