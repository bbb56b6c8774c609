//! A real browser on the page of the real demo: alerts arrive live, one is opened, filtered, silenced; axe finds nothing; pictures are
//! taken, those that README shows.
//!
//! In: `trailwarden demo`, `tests/page.cjs`. Out: the script's steps, and pictures in `target/page`. Invariant: without Chromium, Node or
//! the npm packages the test passes and says `left out`.
#![cfg(feature = "demo")]

#[path = "support/demo.rs"]
mod demo;
#[path = "support/tools.rs"]
mod tools;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

#[test]
fn a_person_can_use_the_page() {
    let (Some(node), Some(chromium)) = (tools::tool("node"), tools::tool("chromium")) else { return };
    let (Some(_), Some(_)) = (tools::node_package("playwright-core"), tools::node_package("axe-core")) else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page");
    std::fs::create_dir_all(&folder).unwrap();
    let mut child = Command::new(node)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page.cjs"))
        .arg(&folder)
        .env("NODE_PATH", tools::tools().join("node_modules"))
        .env("CHROMIUM", chromium)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut demo = None;
    let mut said = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        // The attack begins when somebody can watch it.
        if line == "launched" {
            let demo = demo.insert(demo::start(&[]));
            writeln!(child.stdin.take().unwrap(), "http://{}/ {}", demo.address, demo.token).unwrap();
        }
        said += &(line + "\n");
    }
    let status = child.wait().unwrap();
    println!("{said}pictures: {}", folder.display());
    assert!(status.success(), "{said}\nthe demo said:\n{}", demo.map(|demo| demo.said()).unwrap_or_default());
}
