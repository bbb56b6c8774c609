//! Embeds the built-in detectors: `detectors/**/*.yml` become a table of names and texts in `OUT_DIR/detectors.rs`.

use std::{env, fmt::Write, fs, io, path::Path};

fn main() -> io::Result<()> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("detectors");
    println!("cargo::rerun-if-changed={}", root.display());
    println!("cargo::rerun-if-changed=build.rs");
    let mut files = Vec::new();
    if root.is_dir() {
        collect(&root, &mut files)?;
    }
    files.sort();
    let mut table = format!("pub static FILES: [(&str, &str); {}] = [\n", files.len());
    for file in &files {
        let name = Path::new(file).strip_prefix(&root).expect("found below the root").display().to_string();
        writeln!(table, "    (\"builtin/{name}\", include_str!({file:?})),").expect("a string takes all");
    }
    table.push_str("];\n");
    fs::write(Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("detectors.rs"), table)
}

fn collect(folder: &Path, files: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            files.push(path.display().to_string());
        }
    }
    Ok(())
}
