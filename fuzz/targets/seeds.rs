//! Writes inputs to begin with: `seeds FOLDER` fills FOLDER/record, FOLDER/event and FOLDER/rules.
//!
//! In: a folder. Out: a few hundred small files. Invariant: the same files every time.

use std::{fs, io, path::Path};

use trailwarden::demo::corpus::{
    Corpus,
    wrap::{self, Envelopes, Gzip},
};

fn write(folder: &Path, name: &str, index: usize, bytes: &[u8]) -> io::Result<()> {
    let folder = folder.join(name);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("seed-{index:04}")), bytes)
}

fn main() -> io::Result<()> {
    let folder = std::env::args().nth(1).expect("usage: seeds FOLDER");
    let folder = Path::new(&folder);
    let mut corpus = Corpus::new(1);
    for index in 0..200 {
        let mut event = Vec::new();
        corpus.next_event(&mut event);
        write(folder, "event", index, &event)?;
        write(folder, "record", index, &[&[index as u8 % 4], event.as_slice()].concat())?;
    }
    let mut envelopes = Envelopes::new(Corpus::new(2)).with_sizes(1..=3);
    for index in 200..240 {
        let mut record = vec![0];
        envelopes.next_record(&mut record);
        write(folder, "record", index, &record)?;
    }
    write(folder, "record", 240, &[&[0], wrap::s3_file(&mut Corpus::new(3), 3, &mut Gzip::default()).as_slice()].concat())?;
    let detectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../detectors");
    let mut folders = vec![detectors];
    let mut index = 0;
    while let Some(folder_of_rules) = folders.pop() {
        for entry in fs::read_dir(folder_of_rules)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "yml") {
                write(folder, "rules", index, &fs::read(path)?)?;
                index += 1;
            }
        }
    }
    Ok(())
}
